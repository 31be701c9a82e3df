package nettest

import (
	"errors"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NAT is the kind of NAT of a [Host] that forwards IPv4 packets.
type NAT int

const (
	// NoNAT forwards without translation.
	NoNAT NAT = iota
	// FullCone has endpoint-independent mapping and filtering.
	FullCone
	// PortRestricted has endpoint-independent mapping to random ports, and
	// address-and-port-dependent filtering.
	PortRestricted
	// Symmetric has address-and-port-dependent mapping to random ports, and
	// address-and-port-dependent filtering.
	Symmetric
	// UDPBlocked drops UDP from inside.
	UDPBlocked
)

// The nftables table of a NAT, and its maps: from inside to outside addresses (mapped),
// and from outside ports to inside addresses (owners).
const (
	natTable     = "nettest-nat"
	restartTable = "nettest-restart"
	mappedSet    = "mapped"
	ownersSet    = "owners"
	learnAt      = 150 // after source translation
	mappedSource = unix.NFT_REG32_00
	mappedTarget = unix.NFT_REG32_04
)

// NAT makes the host a router with a NAT. The interface with the name outside is the
// outside; all others are inside.
func (h *Host) NAT(nat NAT, outside string) {
	h.tb.Helper()
	h.Sysctl("net/ipv4/ip_forward", "1")
	if nat == NoNAT {
		return
	}
	h.nftables(func(c *nftables.Conn) error {
		t := c.AddTable(&nftables.Table{Name: natTable, Family: nftables.TableFamilyIPv4})
		if nat == UDPBlocked {
			hook(c, t, "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0,
				join(out(outside), udp(), drop()))
			return nil
		}
		return translate(c, t, nat, outside)
	})
}

// Forget clears the mappings of the host's NAT, as a restart does. It takes several steps,
// during which the host forwards nothing, so that no packet makes a mapping between them.
func (h *Host) Forget() {
	h.tb.Helper()
	restart := &nftables.Table{Name: restartTable, Family: nftables.TableFamilyINet}
	h.nftables(func(c *nftables.Conn) error {
		hook(c, c.AddTable(restart), "forward", nftables.ChainTypeFilter, nftables.ChainHookForward, 0, drop())
		return nil
	})
	h.nftables(func(c *nftables.Conn) error {
		t, err := c.ListTableOfFamily(natTable, nftables.TableFamilyIPv4)
		if err != nil {
			return err
		}
		sets, err := c.GetSets(t)
		for _, set := range sets {
			c.FlushSet(set)
		}
		return err
	})
	h.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	h.nftables(func(c *nftables.Conn) error {
		c.DelTable(restart)
		return nil
	})
}

// ruling is held while rules are made, since package nftables numbers sets by a global
// variable.
var ruling sync.Mutex

// nftables changes the host's rules in one transaction.
func (h *Host) nftables(change func(*nftables.Conn) error) {
	h.tb.Helper()
	ruling.Lock()
	defer ruling.Unlock()
	h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		if err := change(c); err != nil {
			return err
		}
		return c.Flush()
	})
}

// translate makes the rules of a NAT. Packets from outside without a mapping are for the
// host itself, which drops them.
func translate(c *nftables.Conn, t *nftables.Table, nat NAT, outside string) error {
	source := [][]expr.Any{
		join(out(outside), udp(), []expr.Any{&expr.Masq{FullyRandom: true}}),
		join(out(outside), []expr.Any{&expr.Masq{}}),
	}
	var target [][]expr.Any
	if nat != Symmetric {
		if err := maps(c, t); err != nil {
			return err
		}
		source = append([][]expr.Any{mapped(outside)}, source...)
		hook(c, t, "learn", nftables.ChainTypeFilter, nftables.ChainHookPostrouting, learnAt, learn(outside))
	}
	if nat == FullCone {
		target = append(target, owned(outside))
	}
	hook(c, t, "prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, *nftables.ChainPriorityNATDest, target...)
	hook(c, t, "postrouting", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, *nftables.ChainPriorityNATSource, source...)
	hook(c, t, "input", nftables.ChainTypeFilter, nftables.ChainHookInput, 0, join(in(outside), udp(), drop()))
	return nil
}

func maps(c *nftables.Conn, t *nftables.Table) error {
	address := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	mapped := &nftables.Set{Table: t, Name: mappedSet, IsMap: true, Dynamic: true, Concatenation: true, KeyType: address, DataType: address, Size: 1 << 16}
	owners := &nftables.Set{Table: t, Name: ownersSet, IsMap: true, Dynamic: true, KeyType: nftables.TypeInetService, DataType: address, Size: 1 << 16}
	return errors.Join(c.AddSet(mapped, nil), c.AddSet(owners, nil))
}

// mapped translates inside addresses that have a mapping to their outside address.
func mapped(outside string) []expr.Any {
	return join(out(outside), udp(), []expr.Any{
		&expr.Payload{DestRegister: mappedSource, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{DestRegister: mappedSource + 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Lookup{SourceRegister: mappedSource, SetName: mappedSet, DestRegister: mappedTarget, IsDestRegSet: true},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: mappedTarget, RegProtoMin: mappedTarget + 1, Specified: true},
	})
}

// owned forwards packets to a mapped port to its inside address, whatever their source
// is.
func owned(outside string) []expr.Any {
	return join(in(outside), udp(), []expr.Any{
		&expr.Payload{DestRegister: mappedSource, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: mappedSource, SetName: ownersSet, DestRegister: mappedTarget, IsDestRegSet: true},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: mappedTarget, RegProtoMin: mappedTarget + 1, Specified: true},
	})
}

// learn stores the mapping of the first packet of an inside address.
func learn(outside string) []expr.Any {
	return join(out(outside), udp(), []expr.Any{
		&expr.Ct{Register: unix.NFT_REG_1, Key: expr.CtKeyDIRECTION},
		&expr.Cmp{Op: expr.CmpOpEq, Register: unix.NFT_REG_1, Data: []byte{0}}, // original
		&expr.Ct{Register: mappedSource, Key: expr.CtKeySRC},
		&expr.Ct{Register: mappedSource + 1, Key: expr.CtKeyPROTOSRC},
		&expr.Payload{DestRegister: mappedTarget, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
		&expr.Payload{DestRegister: mappedTarget + 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
		&expr.Dynset{SrcRegKey: mappedSource, SrcRegData: mappedTarget, SetName: mappedSet, Operation: uint32(unix.NFT_DYNSET_OP_ADD)},
		&expr.Dynset{SrcRegKey: mappedTarget + 1, SrcRegData: mappedSource, SetName: ownersSet, Operation: uint32(unix.NFT_DYNSET_OP_ADD)},
	})
}
