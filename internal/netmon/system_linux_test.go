package netmon

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/nettest"
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

// TestNetlinkAll: an address that nobody should use is still one of the host's.
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
