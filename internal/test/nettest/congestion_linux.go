package nettest

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Congestion sets the congestion control of TCP on all IPv4 routes that the host has. A
// network namespace may not set one for all routes to come.
func (h *Host) Congestion(algorithm string) {
	h.tb.Helper()
	h.Do(func() error {
		routes, err := netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return err
		}
		var errs []error
		for _, r := range routes {
			r.Congctl, r.Flags = algorithm, 0 // the flags are about the state of the link
			errs = append(errs, netlink.RouteReplace(&r))
		}
		return errors.Join(errs...)
	})
}
