package splice

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// option is an option of a socket whose value is a number.
type option struct{ level, name int }

// probes are the options by which a socket sends packets when its peer is silent, or ends when
// the peer does not answer.
var probes = [...]option{
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
	{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT},
}

var noDelay = option{unix.IPPROTO_TCP, unix.TCP_NODELAY}

// carried are the options that a socket has which is made for another one, except for those in
// probes, the type of service and the congestion control.
var carried = [...]option{
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
	noDelay,
	{unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT},
	{unix.SOL_SOCKET, unix.SO_MARK},
	{unix.SOL_SOCKET, unix.SO_PRIORITY},
	{unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX},
}

// settings are the options of a socket. The next process reads them as they are in memory.
type settings struct {
	Probes     [len(probes)]int32
	Carried    [len(carried)]int32
	Service    int32 // the type of service of IPv4, or the traffic class of IPv6
	Congestion [16]byte
}

func serviceOption(addr netip.Addr) option {
	if addr.Is4() {
		return option{unix.IPPROTO_IP, unix.IP_TOS}
	}
	return option{unix.IPPROTO_IPV6, unix.IPV6_TCLASS}
}

// readSettings reads the options of a socket with that local address.
func readSettings(fd int, local netip.Addr) (s settings, err error) {
	read := func(o option) int32 {
		v, e := unix.GetsockoptInt(fd, o.level, o.name)
		err = errors.Join(err, e)
		return int32(v)
	}
	for i, o := range probes {
		s.Probes[i] = read(o)
	}
	for i, o := range carried {
		s.Carried[i] = read(o)
	}
	s.Service = read(serviceOption(local))
	name, e := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	copy(s.Congestion[:], name)
	if err = errors.Join(err, e); err != nil {
		return s, fmt.Errorf("read socket options: %w", err)
	}
	return s, nil
}

// mark returns the mark of the packets of the socket.
func (s *settings) mark() int {
	for i, o := range carried {
		if o.name == unix.SO_MARK && o.level == unix.SOL_SOCKET {
			return int(s.Carried[i])
		}
	}
	return 0
}

// apply sets the options of a socket, except for those in probes.
func (s *settings) apply(fd int, local netip.Addr) error {
	var errs []error
	set := func(o option, value int32) {
		if value != 0 || o == noDelay { // the others are 0 in a new socket
			errs = append(errs, unix.SetsockoptInt(fd, o.level, o.name, int(value)))
		}
	}
	for i, o := range carried {
		set(o, s.Carried[i])
	}
	set(serviceOption(local), s.Service)
	if name := unix.ByteSliceToString(s.Congestion[:]); name != "" {
		errs = append(errs, unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set socket options: %w", err)
	}
	return nil
}

// silence stops a socket from sending packets when its peer is silent.
func silence(fd int) error { return setProbes(fd, [len(probes)]int32{}) }

// setProbes sets the options in probes.
func setProbes(fd int, values [len(probes)]int32) error {
	var errs []error
	for i, o := range probes {
		errs = append(errs, unix.SetsockoptInt(fd, o.level, o.name, int(values[i])))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("set keepalive: %w", err)
	}
	return nil
}
