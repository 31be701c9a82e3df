package relay

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/quicway/quicway/internal/control"
)

// URL returns the text that p2p.ParseRelay reads, with all that a peer needs to use the
// server:
//
//	quicway://TOKEN@HOST:PORT?pin=PIN&tunnel=PORT&zone=ZONE
//
// TOKEN is the Token, unless Config.Authorize is set: then there is none, and the peers add
// their own. PIN is the Pin, if there is one. tunnel is Config.TunnelPort, and zone is
// Config.Zone, if they are set.
//
// host is the name or the IP address by which peers reach the server. It may have a port,
// which is needed if peers use another one than that of Addr. Empty means Config.Advertise, or
// else the address of the first socket, with 127.0.0.1 or ::1 for an unspecified one. The URL
// has the access token: treat it as a secret.
func (s *Server) URL(host string) string {
	u := control.RelayURL{Addr: s.reachedAt(host), Pin: s.pin, TunnelPort: s.conf.TunnelPort, Zone: s.conf.Zone}
	if !s.authorizes {
		u.Token = s.conf.Token
	}
	return u.String()
}

// reachedAt returns the host and the port at which peers reach the server.
func (s *Server) reachedAt(host string) string {
	at := s.Addr()
	if host == "" {
		host = s.conf.Advertise
	}
	if host == "" {
		host = loopbackFor(at.Addr()).String()
	}
	if name, port, err := net.SplitHostPort(host); err == nil {
		if port != "" {
			return host
		}
		host = name
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(int(at.Port())))
}

// loopbackFor returns an address at which this host itself reaches a socket with a local
// address. A socket at :: may take packets by IPv6 only.
func loopbackFor(local netip.Addr) netip.Addr {
	switch local = local.Unmap(); {
	case local == netip.IPv6Unspecified():
		return netip.IPv6Loopback()
	case local.IsUnspecified():
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return local
}
