package sni

import (
	"errors"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// rawSocket is a socket of a loop as a syscall.RawConn that can only be controlled.
type rawSocket int

// Control calls f with the descriptor.
func (fd rawSocket) Control(f func(fd uintptr)) error {
	f(uintptr(fd))
	return nil
}

// Read is not supported.
func (rawSocket) Read(func(uintptr) bool) error { return errors.ErrUnsupported }

// Write is not supported.
func (rawSocket) Write(func(uintptr) bool) error { return errors.ErrUnsupported }

// sockaddrOf returns an address for the system, with the names of its network and family.
func sockaddrOf(a netip.AddrPort) (network string, family int, addr unix.Sockaddr) {
	if a.Addr().Unmap().Is4() {
		return "tcp4", unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().Unmap().As4()}
	}
	return "tcp6", unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// addrPortOf returns an address of the system that can be compared.
func addrPortOf(addr syscall.Sockaddr) netip.AddrPort {
	switch a := addr.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		return plain(netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)))
	}
	return netip.AddrPort{}
}
