package netmon

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
)

func TestNetlink(t *testing.T) {
	a, b := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(a, "eth0", []string{"192.168.1.2/24"}, b, "eth0", nil)
	var m *Monitor
	a.Do(func() (err error) {
		m, err = New(&Config{Settle: time.Millisecond})
		return err
	})
	defer m.Close()
	expect := func(want string) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for fmt.Sprint(m.Addresses()) != want {
			select {
			case <-m.Changes():
			case <-timeout:
				t.Fatalf("got %v, want %v", m.Addresses(), want)
			}
		}
	}
	link := func(f func(netlink.Link) error) {
		t.Helper()
		a.Do(func() error {
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return f(l)
		})
	}
	expect("[{eth0 192.168.1.2}]")
	a.Address("eth0", "192.168.1.3/24")
	expect("[{eth0 192.168.1.2} {eth0 192.168.1.3}]")
	a.Readdress("eth0", "192.168.1.4/24", "2001:db8::4/64")
	expect("[{eth0 192.168.1.4} {eth0 2001:db8::4}]")
	link(func(l netlink.Link) error { // its preferred lifetime is over
		addr, err := netlink.ParseAddr("2001:db8::4/64")
		if err != nil {
			return err
		}
		addr.PreferedLft, addr.ValidLft, addr.Flags = 0, 3600, unix.IFA_F_NODAD
		return netlink.AddrReplace(l, addr)
	})
	expect("[{eth0 192.168.1.4}]")
	link(netlink.LinkSetDown)
	expect("[]")
	link(netlink.LinkSetUp)
	expect("[{eth0 192.168.1.4}]")
	a.Address("eth0", "2001:db8::9/64")
	expect("[{eth0 192.168.1.4} {eth0 2001:db8::9}]")
}

// TestNetlinkAll checks that Config.All lists loopback and deprecated addresses.
func TestNetlinkAll(t *testing.T) {
	a, b := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(a, "eth0", []string{"192.168.1.2/24"}, b, "eth0", nil)
	var m *Monitor
	a.Do(func() (err error) {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr("10.77.0.1/32")
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
		eth, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		old, err := netlink.ParseAddr("2001:db8::4/64")
		if err != nil {
			return err
		}
		old.PreferedLft, old.ValidLft, old.Flags = 0, 3600, unix.IFA_F_NODAD
		if err := netlink.AddrReplace(eth, old); err != nil {
			return err
		}
		m, err = New(&Config{All: true})
		return err
	})
	defer m.Close()
	for _, want := range []string{"{lo 10.77.0.1}", "{eth0 192.168.1.2}", "{eth0 2001:db8::4}"} {
		if got := fmt.Sprint(m.Addresses()); !strings.Contains(got, want) {
			t.Errorf("%s is not among %s", want, got)
		}
	}
}

// TestRoles checks that uplinks and interfaces of networks within the host are recognized.
func TestRoles(t *testing.T) {
	a, b := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(a, "zz0", []string{"192.168.1.2/24"}, b, "eth0", []string{"192.168.1.1/24"})
	nettest.Cable(a, "aa0", []string{"10.1.1.2/24"}, b, "eth1", nil)
	a.Route("0.0.0.0/0", "192.168.1.1")
	a.Do(func() error {
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "mine0"}}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		port := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "port0", MasterIndex: bridge.Index}, PeerName: "port1"}
		if err := netlink.LinkAdd(port); err != nil {
			return err
		}
		for _, name := range []string{"port0", "port1", "mine0"} {
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetUp(l)
			}
			if err != nil {
				return err
			}
		}
		addr, err := netlink.ParseAddr("172.17.0.1/16")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(bridge, addr)
	})
	var m *Monitor
	a.Do(func() (err error) {
		m, err = New(&Config{Settle: time.Millisecond})
		return err
	})
	defer m.Close()
	for timeout := time.After(10 * time.Second); len(m.Addresses()) < 3; { // a bridge takes a moment
		select {
		case <-m.Changes():
		case <-timeout:
			t.Fatalf("got %v", m.Addresses())
		}
	}
	want := map[string]Role{"zz0": Uplink, "aa0": Plain, "mine0": Inner}
	for _, addr := range m.Addresses() {
		if role, ok := want[addr.Interface]; !ok || addr.Role != role {
			t.Errorf("%v: role %d, want %d", addr, addr.Role, role)
		}
		delete(want, addr.Interface)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
}

// TestSources checks that the source addresses of packets to other hosts, and which of them
// belong to an uplink, are found without netlink.
func TestSources(t *testing.T) {
	a, b := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(a, "eth0", []string{"192.168.1.2/24", "2001:db8::2/64"}, b, "eth0", []string{"192.168.1.1/24", "2001:db8::1/64"})
	nettest.Cable(a, "eth1", []string{"10.1.1.2/24"}, b, "eth1", []string{"10.1.1.1/24"})
	a.Route("0.0.0.0/0", "192.168.1.1")
	a.Route("::/0", "2001:db8::1")
	a.Route("10.0.0.0/8", "10.1.1.1")
	a.Do(func() error {
		addrs, err := sources()
		want := []Address{
			{Addr: netip.MustParseAddr("192.168.1.2"), Role: Uplink},
			{Addr: netip.MustParseAddr("2001:db8::2"), Role: Uplink},
			{Addr: netip.MustParseAddr("10.1.1.2"), Role: Plain},
		}
		if err != nil || !slices.Equal(addrs, want) {
			t.Errorf("got %+v, %v, want %+v", addrs, err, want)
		}
		return nil
	})
}
