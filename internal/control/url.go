package control

import (
	"net/url"
	"strconv"
)

// RelayScheme begins the URL of a relay.
const RelayScheme = "quicway"

// RelayURL is what the URL of a relay says:
//
//	quicway://TOKEN@HOST:PORT?pin=PIN&tunnel=PORT&zone=ZONE
//
// Fields other than Addr may be empty, and are left out then.
type RelayURL struct {
	Addr             string // host:port
	Token, Pin, Zone string
	TunnelPort       uint16
}

// String returns the URL.
func (r RelayURL) String() string {
	u := url.URL{Scheme: RelayScheme, Host: r.Addr}
	if r.Token != "" {
		u.User = url.User(r.Token)
	}
	query := url.Values{}
	if r.Pin != "" {
		query.Set("pin", r.Pin)
	}
	if r.Zone != "" {
		query.Set("zone", r.Zone)
	}
	if r.TunnelPort != 0 {
		query.Set("tunnel", strconv.Itoa(int(r.TunnelPort)))
	}
	u.RawQuery = query.Encode()
	return u.String()
}
