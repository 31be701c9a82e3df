package netmon

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
)

func addresses(of ...string) []Address {
	var addrs []Address
	for _, a := range of {
		addrs = append(addrs, Address{Interface: "eth0", Addr: netip.MustParseAddr(a)})
	}
	return addrs
}

func TestUsable(t *testing.T) {
	all := addresses("127.0.0.1", "::1", "0.0.0.0", "ff02::1", "224.0.0.1", "169.254.1.1", "fe80::1%eth0",
		"2001:db8::2", "192.168.1.2", "2001:db8::2", "100.64.0.1", "fd00::1")
	all = append(all, Address{})
	for _, test := range []struct {
		conf Config
		want string
	}{
		{Config{}, "[{eth0 100.64.0.1} {eth0 192.168.1.2} {eth0 2001:db8::2} {eth0 fd00::1}]"},
		{Config{LinkLocal: true, Filter: func(a Address) bool { return a.Addr.IsLinkLocalUnicast() }}, "[{eth0 169.254.1.1} {eth0 fe80::1%eth0}]"},
		{Config{All: true, Filter: func(a Address) bool { return !a.Addr.Is4() }}, "[{eth0 ::1} {eth0 2001:db8::2} {eth0 fd00::1} {eth0 fe80::1%eth0} {eth0 ff02::1}]"},
		{Config{Filter: func(a Address) bool { return a.Interface != "eth0" }}, "[]"},
	} {
		nettest.Bubble(t, func(t *testing.T) {
			test.conf.List = func() ([]Address, error) { return all, nil }
			m, err := New(&test.conf)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if got := fmt.Sprint(m.Addresses()); got != test.want {
				t.Errorf("got %v, want %v", got, test.want)
			}
		})
	}
}

func TestPoll(t *testing.T) {
	nettest.Bubble(t, func(t *testing.T) {
		var now atomic.Pointer[[]Address] // nil: the list fails
		set := func(of ...string) {
			a := addresses(of...)
			now.Store(&a)
		}
		set("192.168.1.2")
		m, err := New(&Config{Interval: time.Minute, List: func() ([]Address, error) {
			if a := now.Load(); a != nil {
				return *a, nil
			}
			return nil, errors.New("no list")
		}})
		if err != nil {
			t.Fatal(err)
		}
		expect := func(change bool, want string) {
			t.Helper()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			select {
			case <-m.Changes():
				if !change {
					t.Error("an unexpected change")
				}
			default:
				if change {
					t.Error("no change")
				}
			}
			if got := fmt.Sprint(m.Addresses()); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		expect(false, "[{eth0 192.168.1.2}]")
		set("192.168.1.3")
		expect(true, "[{eth0 192.168.1.3}]")
		set("127.0.0.1", "192.168.1.3")
		expect(false, "[{eth0 192.168.1.3}]")
		now.Store(nil)
		expect(false, "[{eth0 192.168.1.3}]")
		if m.Err() == nil {
			t.Error("a list that fails is no error")
		}
		set("10.0.0.1")
		time.Sleep(2 * time.Minute)
		set("10.0.0.2")
		expect(true, "[{eth0 10.0.0.2}]")
		expect(false, "[{eth0 10.0.0.2}]") // both are one change
		if err := m.Err(); err != nil {
			t.Error(err)
		}
		for range 2 {
			if err := m.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := <-m.Changes(); ok {
			t.Error("a change after Close")
		}
	})
}

func TestNoList(t *testing.T) {
	want := errors.New("no list")
	if _, err := New(&Config{List: func() ([]Address, error) { return nil, want }}); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

// TestSystem checks that the list of the system works.
func TestSystem(t *testing.T) {
	m, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range m.Addresses() {
		if a.Interface == "" || !a.Addr.IsValid() || a.Addr.IsLoopback() {
			t.Errorf("listed: %+v", a)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
