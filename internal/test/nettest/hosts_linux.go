package nettest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a network namespace that is removed at the end of the test.
type Host struct {
	tb TB
	ns netns.NsHandle
}

// NewHost makes a host whose only interface is loopback.
func NewHost(tb TB) *Host {
	tb.Helper()
	h := &Host{tb: tb}
	done := make(chan error)
	go func() { // locks its thread, which ends with it
		runtime.LockOSThread()
		var err error
		if h.ns, err = netns.New(); err == nil {
			// Without duplicate address detection, addresses can be used at once.
			err = errors.Join(up("lo"), writeSysctl("net/ipv6/conf/default/accept_dad", "0"))
		}
		done <- err
	}()
	if err := <-done; err != nil {
		Missing(tb, fmt.Sprintf("making a network namespace failed: %v", err))
	}
	tb.Cleanup(func() { h.ns.Close() })
	return h
}

// Do runs f in the namespace, on a thread of its own. If f returns an error, the test
// fails.
func (h *Host) Do(f func() error) {
	h.tb.Helper()
	if err := h.Run(f); err != nil {
		h.tb.Fatal(err)
	}
}

// Run is like Do, but returns the error of f.
func (h *Host) Run(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Listen opens a UDP socket on the host.
func (h *Host) Listen(addr string) (conn *net.UDPConn) {
	h.tb.Helper()
	h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
		return err
	})
	return conn
}

// Sysctl sets a variable of /proc/sys/net on the host.
func (h *Host) Sysctl(name, value string) {
	h.tb.Helper()
	h.Do(func() error { return writeSysctl(name, value) })
}

// Route adds a route to a prefix through a gateway.
func (h *Host) Route(prefix, gateway string) {
	h.tb.Helper()
	h.Do(func() error {
		p := netip.MustParsePrefix(prefix)
		return netlink.RouteAdd(&netlink.Route{
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
			Gw:  netip.MustParseAddr(gateway).AsSlice(),
		})
	})
}

// Cable connects two hosts by a pair of interfaces with these names and these addresses,
// which have their prefix lengths. The interfaces send packets with complete checksums:
// an XDP program that forwards them does not fill them in.
func Cable(a *Host, nameA string, addrsA []string, b *Host, nameB string, addrsB []string) {
	a.tb.Helper()
	a.Do(func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: nameA}, PeerName: nameB, PeerNamespace: netlink.NsFd(b.ns)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return setup(nameA, addrsA)
	})
	b.Do(func() error { return setup(nameB, addrsB) })
}

func setup(name string, addrs []string) error {
	if err := readdress(name, addrs); err != nil {
		return err
	}
	if err := switchOff(name, checksumOffload); err != nil {
		return err
	}
	return up(name)
}

// readdress gives addresses to an interface, without duplicate address detection.
func readdress(name string, addrs []string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, addr := range addrs {
		p := netip.MustParsePrefix(addr)
		mask := net.CIDRMask(p.Bits(), p.Addr().BitLen())
		if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD}); err != nil {
			return err
		}
	}
	return nil
}

func up(name string) error {
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}

// PassXDP attaches an XDP program that passes everything to an interface. A veth receives
// packets that a program at its other end redirects only if it has a program too.
func (h *Host) PassXDP(name string) {
	h.tb.Helper()
	h.Do(func() error {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type:         ebpf.XDP,
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 2), asm.Return()},
			License:      "MIT",
		})
		if err != nil {
			return err
		}
		h.tb.Cleanup(func() { prog.Close() })
		iface, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: iface.Index, Flags: link.XDPDriverMode})
		if err != nil {
			return err
		}
		h.tb.Cleanup(func() { l.Close() })
		return nil
	})
}

// Address adds addresses to an interface of the host.
func (h *Host) Address(name string, addrs ...string) {
	h.tb.Helper()
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, addr := range addrs {
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return nil
	})
}

// Readdress replaces the addresses of an interface, as a move to another network does.
// The addresses have their prefix lengths. The routes through gateways stay.
func (h *Host) Readdress(name string, addrs ...string) {
	h.tb.Helper()
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		routes, err := netlink.RouteList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		old, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range old {
			if a.IP.IsLinkLocalUnicast() {
				continue
			}
			// Removing the first address of a prefix removes the secondary ones.
			if gone := netlink.AddrDel(l, &a); !errors.Is(gone, unix.EADDRNOTAVAIL) {
				err = errors.Join(err, gone)
			}
		}
		return errors.Join(err, readdress(name, addrs), reroute(routes))
	})
}

// reroute adds those routes through a gateway again that were removed with an address.
func reroute(routes []netlink.Route) error {
	var errs []error
	for _, r := range routes {
		if r.Gw != nil {
			errs = append(errs, netlink.RouteReplace(&netlink.Route{LinkIndex: r.LinkIndex, Dst: r.Dst, Gw: r.Gw}))
		}
	}
	return errors.Join(errs...)
}

// Unplug sets an interface down, which removes its routes.
func (h *Host) Unplug(name string) {
	h.tb.Helper()
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	})
}

// MTU sets the MTU of an interface.
func (h *Host) MTU(name string, mtu int) {
	h.tb.Helper()
	h.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkSetMTU(l, mtu)
	})
}
