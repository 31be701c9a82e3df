package portmap

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/internal/test/nettest"
)

func TestGateway(t *testing.T) {
	h, router := nettest.NewHost(t), nettest.NewHost(t)
	nettest.Cable(h, "eth0", []string{"192.168.1.2/24"}, router, "eth0", []string{"192.168.1.1/24"})
	nettest.Cable(h, "eth1", []string{"10.0.0.2/24"}, router, "eth1", []string{"10.0.0.1/24"})
	find := func() (via, local netip.Addr, err error) {
		err = h.Run(func() (err error) {
			via, local, err = gateway()
			return err
		})
		return via, local, err
	}
	if via, _, err := find(); err == nil {
		t.Errorf("without a default route: got %v", via)
	}
	h.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Gw: netip.MustParseAddr("10.0.0.1").AsSlice(), Priority: 600})
	})
	for _, want := range []string{"10.0.0.1 10.0.0.2", "192.168.1.1 192.168.1.2"} {
		via, local, err := find()
		if got := via.String() + " " + local.String(); err != nil || got != want {
			t.Errorf("got %v, %v, want %v", got, err, want)
		}
		if via.String() == "10.0.0.1" {
			h.Route("0.0.0.0/0", "192.168.1.1") // with a better metric
		}
	}
}
