package relay

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
)

// Bounds of what a relay tells of itself and of other relays.
const (
	maxName = 64 // bytes of a name, and of a zone
	maxHost = 255
	// maxOldSecrets bounds the keys that a token is checked with.
	maxOldSecrets = 8
	// memberRoom is how much of a message is for other things than the members.
	memberRoom = 256
)

// Member is another relay, which clients may use in place of this one ([Config.Members]).
type Member struct {
	// Name is the Name of that relay. A server ignores the entry with its own Name, so
	// that all relays may have the same list. It may be empty.
	Name string
	// Addr is the host and the UDP port at which clients reach the relay.
	Addr string
	// Pin is the relay's [Server.Pin]. Empty: that of this server, as relays with one
	// Secret have.
	Pin string
	// Zone is the Zone of that relay. It may be empty.
	Zone string
}

func (m *Member) validate() error {
	if err := checkAddr(m.Addr); err != nil {
		return fmt.Errorf("%w: address of member %q: %w", ErrConfig, m.Name, err)
	}
	if len(m.Name) > maxName || len(m.Zone) > maxName {
		return fmt.Errorf("%w: name or zone of member %q is longer than %d bytes", ErrConfig, m.Addr, maxName)
	}
	if m.Pin == "" {
		return nil
	}
	if _, err := pki.ParseKeyID(m.Pin); err != nil {
		return fmt.Errorf("%w: pin of member %q: %w", ErrConfig, m.Addr, err)
	}
	return nil
}

// checkAddr returns an error unless addr is a host and a port.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || len(host) > maxHost {
		return fmt.Errorf("%q is not a host and a port", addr)
	}
	return nil
}

// control is how clients are told about the member.
func (m *Member) control() control.Member {
	return control.Member{Addr: m.Addr, Pin: m.Pin, Zone: m.Zone}
}

// checkMembers returns what clients are told about the members of a list, without the one
// with the name self.
func checkMembers(list []Member, self string) ([]control.Member, error) {
	var out []control.Member
	for i := range list {
		m := &list[i]
		if err := m.validate(); err != nil {
			return nil, err
		}
		if m.Name == "" || m.Name != self {
			out = append(out, m.control())
		}
	}
	if len(out) > control.MaxMembers-1 {
		return nil, fmt.Errorf("%w: %d members, want at most %d", ErrConfig, len(out), control.MaxMembers-1)
	}
	b, err := json.Marshal(&out)
	if err != nil {
		return nil, err
	}
	if len(b) > control.MaxBody-memberRoom-maxSelf {
		return nil, fmt.Errorf("%w: the members take %d bytes in a message, want at most %d", ErrConfig, len(b), control.MaxBody-memberRoom-maxSelf)
	}
	return out, nil
}

// maxSelf is the largest size of a relay's own entry in a message.
const maxSelf = 3*maxName + maxHost + 128

// literal returns the address that a member's host is, or false if it is a name.
func literal(addr string) (netip.AddrPort, bool) {
	a, err := netip.ParseAddrPort(addr)
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), err == nil
}
