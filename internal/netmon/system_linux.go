package netmon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// unusable are the flags of an address that should not be used: tentative, duplicate or
// deprecated (RFC 4862 §5.4, §5.5.4).
const unusable = unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED | unix.IFA_F_DEPRECATED

// kernel lists addresses with one netlink socket, and receives changes with another. Both
// stay in the namespace in which they were opened, whatever thread uses them.
type kernel struct {
	handle *netlink.Handle
	events *os.File
	all    bool
}

var _ system = (*kernel)(nil)

func openSystem(conf *Config) (system, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	events, err := subscribe(unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR)
	switch {
	case err == nil:
		return &kernel{handle: handle, events: events, all: conf.All}, nil
	case conf.Partial: // it lists addresses, but does not report changes
		k := &kernel{handle: handle, all: conf.All}
		return &poll{lister: k.list, interval: conf.Interval, closer: k.close}, nil
	}
	handle.Close()
	return nil, fmt.Errorf("subscribe to address changes: %w", err)
}

// subscribe opens a socket that gets the events of groups.
func subscribe(groups uint32) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// wait reads an event of any kind. A lost one (ENOBUFS) counts as well.
func (k *kernel) wait(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { _ = k.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	_, _ = k.events.Read(make([]byte, 1<<16))
}

// drain discards the events that are waiting, because one listing covers all of them.
func (k *kernel) drain() {
	if k.events == nil {
		return
	}
	raw, err := k.events.SyscallConn()
	if err != nil {
		return
	}
	b := make([]byte, 1<<16)
	_ = raw.Read(func(fd uintptr) bool {
		for range 1 << 10 {
			if _, err := unix.Read(int(fd), b); err != nil && err != unix.ENOBUFS {
				break
			}
		}
		return true
	})
}

func (k *kernel) list() ([]Address, error) {
	k.drain()
	links, err := k.handle.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	up := make(map[int]netlink.Link, len(links))
	for _, l := range links {
		if a := l.Attrs(); k.all || a.Flags&net.FlagUp != 0 && a.Flags&net.FlagLoopback == 0 && a.OperState != netlink.OperDown {
			up[a.Index] = l
		}
	}
	of, err := k.handle.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var addrs []Address
	for _, a := range of {
		addr, ok := netip.AddrFromSlice(a.IP)
		link := up[a.LinkIndex]
		if !ok || link == nil || a.Flags&unusable != 0 && !k.all {
			continue
		}
		name := link.Attrs().Name
		if addr = addr.Unmap(); addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(name)
		}
		addrs = append(addrs, Address{Interface: name, Addr: addr})
	}
	return k.assign(addrs, up), nil
}

// assign sets the roles of addresses.
func (k *kernel) assign(addrs []Address, up map[int]netlink.Link) []Address {
	roles := make(map[string]Role)
	for i := range addrs {
		name := addrs[i].Interface
		if _, known := roles[name]; !known && k.leads(name) {
			roles[name] = Uplink
		} else if !known {
			roles[name] = Plain
		}
	}
	for _, l := range up {
		if name := l.Attrs().Name; roles[name] == Plain && isInner(l) {
			roles[name] = Inner
		}
	}
	for _, to := range destinations[:outside] { // an uplink may have no gateway, as with PPP
		routes, err := k.handle.RouteGet(to.Addr().AsSlice())
		if err == nil && len(routes) > 0 && up[routes[0].LinkIndex] != nil {
			roles[up[routes[0].LinkIndex].Attrs().Name] = Uplink
		}
	}
	for i := range addrs {
		addrs[i].Role = roles[addrs[i].Interface]
	}
	return addrs
}

// leads says whether an interface has a route to the internet through a gateway.
func (k *kernel) leads(name string) bool {
	for _, to := range destinations[:outside] {
		routes, err := k.handle.RouteGetWithOptions(to.Addr().AsSlice(), &netlink.RouteGetOptions{Oif: name})
		// Without a route, the kernel assumes that all destinations are on the link.
		if err == nil && len(routes) > 0 && (len(routes[0].Gw) > 0 || routes[0].Via != nil) {
			return true
		}
	}
	return false
}

// isInner says whether an interface is a bridge, or has the name of an Inner one.
func isInner(l netlink.Link) bool {
	switch l.Type() {
	case "bridge", "dummy", "openvswitch":
		return true
	}
	return innerName(l.Attrs().Name)
}

func (k *kernel) close() error {
	k.handle.Close()
	if k.events == nil {
		return nil
	}
	return k.events.Close()
}
