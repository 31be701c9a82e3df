package nettest

import "github.com/vishvananda/netlink"

// Impair delays, loses, reorders or duplicates the packets that an interface of the host
// sends (tc-netem(8)).
func (h *Host) Impair(name string, how netlink.NetemQdiscAttrs) {
	h.tb.Helper()
	err := h.Run(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		root := netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT}
		return netlink.QdiscReplace(netlink.NewNetem(root, how))
	})
	Modular(h.tb, "netem", err)
}
