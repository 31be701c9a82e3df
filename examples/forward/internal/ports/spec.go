package ports

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Spec says what is forwarded: what arrives at Listen on one side goes to Target from the other.
type Spec struct {
	Network string // "tcp" or "udp"
	Listen  string // host:port; an empty host means all addresses, and port 0 any free port
	Target  string // host:port
}

func (s Spec) String() string { return s.Network + " " + s.Listen + " to " + s.Target }

// ParseSpec parses [tcp:|udp:][HOST:]PORT:HOST:PORT: where to listen, which is on 127.0.0.1 if
// there is no host and on all addresses if it is *, and the target. IPv6 addresses are in
// brackets.
func ParseSpec(text string) (Spec, error) {
	s := Spec{Network: "tcp"}
	rest := text
	for _, network := range []string{"tcp", "udp"} {
		if after, ok := strings.CutPrefix(text, network+":"); ok {
			s.Network, rest = network, after
		}
	}
	fields := splitColons(rest)
	if len(fields) == 3 {
		fields = append([]string{"127.0.0.1"}, fields...)
	}
	if len(fields) != 4 {
		return s, fmt.Errorf("%q: want [tcp:|udp:][HOST:]PORT:HOST:PORT, IPv6 addresses in brackets", text)
	}
	if fields[0] == "*" {
		fields[0] = ""
	}
	s.Listen, s.Target = net.JoinHostPort(fields[0], fields[1]), net.JoinHostPort(fields[2], fields[3])
	if err := s.check(); err != nil {
		return s, fmt.Errorf("%q: %w", text, err)
	}
	return s, nil
}

// check says what is wrong with a spec, which may be the peer's.
func (s *Spec) check() error {
	if s.Network != "tcp" && s.Network != "udp" {
		return fmt.Errorf("unknown network %q", s.Network)
	}
	if _, _, err := splitHostPort(s.Listen, 0); err != nil {
		return err
	}
	return checkTarget(s.Target)
}

// checkTarget says what is wrong with host:port of a target.
func checkTarget(target string) error {
	host, _, err := splitHostPort(target, 1)
	if err == nil && (host == "" || host == "*") { // as a permit, * would be any
		err = fmt.Errorf("the target %q has no host", target)
	}
	return err
}

// splitHostPort splits host:port. The port is a number, which is at least least.
func splitHostPort(s string, least uint64) (host, port string, err error) {
	if host, port, err = net.SplitHostPort(s); err != nil {
		return "", "", fmt.Errorf("%q is not HOST:PORT", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n < least {
		return "", "", fmt.Errorf("%q is not a port number", port)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", "", fmt.Errorf("the host %q has characters that no host has", host)
	}
	return host, port, nil
}

// splitColons splits at colons that are not in brackets, and takes the brackets away.
func splitColons(s string) (fields []string) {
	begin, inside := 0, false
	for i, c := range s + ":" {
		switch {
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == ':' && !inside:
			fields = append(fields, strings.Trim(s[begin:i], "[]"))
			begin = i + 1
		}
	}
	return fields
}

// Permits are HOST:PORT patterns of what a peer may connect to, or listen at. The zero value
// permits nothing.
type Permits []permit

type permit struct{ host, port string } // "*" is any

// Add adds HOST:PORT. Both may be *. The host localhost also stands for loopback addresses.
func (p *Permits) Add(text string) error {
	i := strings.LastIndexByte(text, ':')
	if i <= 0 {
		return fmt.Errorf("%q is not HOST:PORT, of which both may be *", text)
	}
	host, port := strings.Trim(text[:i], "[]"), text[i+1:]
	if _, err := strconv.ParseUint(port, 10, 16); err != nil && port != "*" {
		return fmt.Errorf("%q is not a port number or *", port)
	}
	*p = append(*p, permit{strings.ToLower(host), port})
	return nil
}

// errNotPermitted is what a peer is told.
var errNotPermitted = errors.New("not permitted")

// check says whether host:port is permitted.
func (p Permits) check(hostPort string) error {
	host, port, err := splitHostPort(hostPort, 0)
	if err != nil {
		return err
	}
	for _, permit := range p {
		if (permit.port == "*" || permit.port == port) && permit.has(strings.ToLower(host)) {
			return nil
		}
	}
	return fmt.Errorf("%s is %w", hostPort, errNotPermitted)
}

func (p *permit) has(host string) bool {
	if p.host == "*" || p.host == host {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return p.host == "localhost" && err == nil && addr.Unmap().IsLoopback()
}
