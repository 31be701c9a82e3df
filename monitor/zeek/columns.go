package zeek

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/quicway/quicway/monitor"
)

// column is a field of the log. value returns its value as text, and whether it is set.
type column struct {
	name, kind string
	value      func(c *monitor.Connection) (value string, set bool)
}

// columns are the fields of QUIC::Info in their order.
var columns = [...]column{
	{"ts", "time", func(c *monitor.Connection) (string, bool) { return timeText(c.First), !c.First.IsZero() }},
	{"uid", "string", func(c *monitor.Connection) (string, bool) { return c.UID, true }},
	{"id.orig_h", "addr", func(c *monitor.Connection) (string, bool) { return address(client(c)) }},
	{"id.orig_p", "port", func(c *monitor.Connection) (string, bool) { return port(client(c)) }},
	{"id.resp_h", "addr", func(c *monitor.Connection) (string, bool) { return address(server(c)) }},
	{"id.resp_p", "port", func(c *monitor.Connection) (string, bool) { return port(server(c)) }},
	{"version", "string", func(c *monitor.Connection) (string, bool) { return ifAny(versionName(c.Version)) }},
	{"client_initial_dcid", "string", func(c *monitor.Connection) (string, bool) { return ifAny(c.OriginalID) }},
	{"client_scid", "string", func(c *monitor.Connection) (string, bool) { return idText(c.ClientID) }},
	{"server_scid", "string", func(c *monitor.Connection) (string, bool) { return idText(c.ServerID) }},
	{"server_name", "string", func(c *monitor.Connection) (string, bool) { return ifAny(c.ServerName) }},
	{"client_protocol", "string", func(c *monitor.Connection) (string, bool) { return first(c.ALPN) }},
	{"history", "string", func(c *monitor.Connection) (string, bool) { return c.History, true }},
}

// client returns the client's endpoint on the first path, or none.
func client(c *monitor.Connection) (out netip.AddrPort) {
	if len(c.Paths) > 0 {
		out = c.Paths[0].Client
	}
	return out
}

// server returns the server's endpoint on the first path, or none.
func server(c *monitor.Connection) (out netip.AddrPort) {
	if len(c.Paths) > 0 {
		out = c.Paths[0].Server
	}
	return out
}

func address(a netip.AddrPort) (string, bool) { return a.Addr().String(), a.IsValid() }

func port(a netip.AddrPort) (string, bool) { return strconv.Itoa(int(a.Port())), a.IsValid() }

// ifAny returns a field that is unset if it is empty.
func ifAny(s string) (string, bool) { return s, s != "" }

// idText returns a connection ID, which may be empty. It is unset if it was not seen.
func idText(id *monitor.ID) (string, bool) {
	if id == nil {
		return "", false
	}
	return id.String(), true
}

func first(all []string) (string, bool) {
	if len(all) == 0 {
		return "", false
	}
	return all[0], true
}

// versionName returns the name of a version in Zeek's QUIC::version_strings, in which draft 31
// has the name of draft 30. It is empty if the version is not known.
func versionName(v monitor.Version) string {
	switch {
	case v == 0:
		return ""
	case v == 1:
		return "1"
	case v == 0x6b3343cf:
		return "quicv2"
	case v >= 0xff000016 && v <= 0xff000022:
		return fmt.Sprintf("draft-%d", v&0xff)
	}
	switch v {
	case 0xfaceb001, 0xfaceb002, 0xfaceb00e, 0xfaceb011, 0xfaceb012, 0xfaceb013:
		return fmt.Sprintf("mvfst (%x)", uint32(v))
	}
	return fmt.Sprintf("unknown-%x", uint32(v))
}

// timeText returns a time in seconds since 1970, with microseconds.
func timeText(t time.Time) string {
	us := t.UnixMicro()
	return fmt.Sprintf("%d.%06d", us/1e6, us%1e6)
}
