package p2p

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// maxRelayList bounds the document of [RelayList], in bytes.
const maxRelayList = 64 << 10

// errRelayList is the reason why a list of relays cannot be read.
var errRelayList = errors.New("p2p: list of relays")

// RelayList returns a [Config.RelaySource] that gets a JSON document over HTTPS:
//
//	{"relays": [{"addr": "relay.example.org:4433", "token": "TOKEN", "pin": "PIN", "zone": "ZONE"}]}
//
// Only addr is required. The document may have 64 KiB and 16 relays; what else is in it is
// ignored. Who writes the document decides which relays the endpoint trusts: the client must
// verify the server's certificate. client may be nil, which means [http.DefaultClient]. Its
// redirects are followed to https only. The relays have no TunnelPort and no TLS. The
// function may be called concurrently.
func RelayList(address string, client *http.Client) func(context.Context) ([]Relay, error) {
	if client == nil {
		client = http.DefaultClient
	}
	secure := *client
	secure.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		switch {
		case req.URL.Scheme != "https":
			return fmt.Errorf("%w: redirected to %s", errRelayList, req.URL.Redacted())
		case client.CheckRedirect != nil:
			return client.CheckRedirect(req, via)
		case len(via) >= 5:
			return fmt.Errorf("%w: too many redirects", errRelayList)
		}
		return nil
	}
	return func(ctx context.Context) ([]Relay, error) {
		if u, err := url.Parse(address); err != nil || u.Scheme != "https" {
			return nil, fmt.Errorf("%w: not an https URL", errRelayList)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRelayList, err)
		}
		resp, err := secure.Do(req)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRelayList, err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("%w: %s", errRelayList, resp.Status)
		}
		return parseRelayList(resp.Body)
	}
}

// parseRelayList reads the document of RelayList.
func parseRelayList(r io.Reader) ([]Relay, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxRelayList+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errRelayList, err)
	case len(b) > maxRelayList:
		return nil, fmt.Errorf("%w: more than %d bytes", errRelayList, maxRelayList)
	}
	var list struct {
		Relays []struct {
			Addr, Token, Pin, Zone string
		}
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("%w: %w", errRelayList, err)
	}
	if len(list.Relays) > maxRelays {
		return nil, fmt.Errorf("%w: %d relays, want at most %d", errRelayList, len(list.Relays), maxRelays)
	}
	var relays []Relay
	for _, item := range list.Relays {
		relay := Relay{Addr: item.Addr, Token: item.Token, Zone: item.Zone}
		if item.Pin != "" {
			if relay.Pin, err = ParsePeerID(item.Pin); err != nil {
				return nil, fmt.Errorf("%w: %s: %w", errRelayList, item.Addr, err)
			}
		}
		if _, _, err := relay.split(); err != nil {
			return nil, fmt.Errorf("%w: %w", errRelayList, err)
		}
		relays = append(relays, relay)
	}
	return relays, nil
}

// RelaySRV returns a [Config.RelaySource] that looks up the SRV records (RFC 2782) of
// _quicway._udp.NAME with [net.DefaultResolver]. Each record names the host and the port of a
// relay. Priorities and weights are ignored, because the round-trip time decides. All relays
// have the other fields of like. The function may be called concurrently.
//
// Answers of DNS may be forged: without a Pin, any host with a certificate that TLS's RootCAs
// verify could be the relay, and would get the token. So the function returns an error that
// wraps ErrConfig unless Pin is set.
func RelaySRV(name string, like Relay) func(context.Context) ([]Relay, error) {
	return func(ctx context.Context) ([]Relay, error) {
		if like.Pin.IsZero() {
			return nil, fmt.Errorf("%w: %w: SRV records need a Pin", errRelayList, ErrConfig)
		}
		_, records, err := net.DefaultResolver.LookupSRV(ctx, "quicway", "udp", name)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRelayList, err)
		}
		return relaysOf(records, like), nil
	}
}

// relaysOf returns the relays of SRV records.
func relaysOf(records []*net.SRV, like Relay) []Relay {
	var relays []Relay
	for _, r := range records {
		host := strings.TrimSuffix(r.Target, ".")
		if host == "" || r.Port == 0 || len(relays) == maxRelays {
			continue
		}
		relay := like
		relay.Addr = net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
		relays = append(relays, relay)
	}
	return relays
}
