package quota

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/datapath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
)

// TestKernelKeepsConnections checks a source that has all its connections, asks for more, and
// runs a name server that the server uses. The kernel enforces the quota, and the
// connections and the name server keep working. With the program of eQUIC instead, both
// stop working.
func TestKernelKeepsConnections(t *testing.T) {
	everyMode(t, kernelAttackConf, func(w *town) {
		alive, answered := w.attackBesideNames(func() {})
		w.wantDropped(Connections, 1)
		if alive != 5 || !answered {
			t.Errorf("%d connections live on, the name server answers: %v, want 5 and true", alive, answered)
		}
	})
	t.Run("eQUIC", func(t *testing.T) {
		w := newHosts(t)
		w.settle(0)
		counts := attachEQUIC(w)
		w.c = mustNew(t, &Config{Source: Limits{Connections: -1}})
		w.serve()
		alive, answered := w.attackBesideNames(func() {
			addr := netip.MustParseAddr(w.badIP).As4()
			if err := counts.Put(addr, uint32(w.mostOf(w.badIP))); err != nil {
				t.Error(err)
			}
		})
		if alive != 0 || answered {
			t.Errorf("%d connections live on, the name server answers: %v: this is no comparison", alive, answered)
		}
	})
}

// attackBesideNames makes the attacker open five connections and ask for more in vain. It
// calls counted in between. It returns how many of the five stay alive, and whether the
// server still gets answers from a name server on the attacker's host.
func (w *town) attackBesideNames(counted func()) (alive int, answered bool) {
	w.Helper()
	names := w.bad.Listen(net.JoinHostPort(w.badIP, "53"))
	defer names.Close()
	go func() {
		b := make([]byte, 512)
		for n, from, err := names.ReadFrom(b); err == nil; n, from, err = names.ReadFrom(b) {
			names.WriteTo(b[:n], from)
		}
	}()
	asks := w.server.Listen(netip.AddrPortFrom(w.addr.Addr(), 0).String())
	defer asks.Close()
	answers := func(patience time.Duration) bool {
		if _, err := asks.WriteTo([]byte("where is it?"), names.LocalAddr()); err != nil {
			w.Error(err)
		}
		asks.SetReadDeadline(time.Now().Add(patience))
		_, _, err := asks.ReadFrom(make([]byte, 512))
		return err == nil
	}
	if !answers(30 * time.Second) {
		w.Error("the name server does not answer before the attack")
	}
	held, _ := w.holdFrom(w.bad, w.badIP, 5)
	nettest.Eventually(w, "the server has counted five", func() bool { return w.mostOf(w.badIP) == 5 })
	counted()
	for range 5 {
		if err := w.visitFrom(w.bad, w.badIP, 300*time.Millisecond); err == nil {
			w.Error("a connection beyond the quota")
		}
	}
	return living(held), answers(2 * time.Second)
}

// lives reports whether a request on a connection is answered.
func lives(conn *quic.Conn) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err := get(ctx, conn)
	return err == nil
}

// attachEQUIC attaches a program that works like that of eQUIC: it drops all UDP over IPv4
// from an address that has five connections, according to the map that is returned.
func attachEQUIC(w *town) *ebpf.Map {
	w.Helper()
	counts, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 1024})
	if err != nil {
		nettest.Missing(w, err.Error())
	}
	w.Cleanup(func() { counts.Close() })
	const quota, end = 5, 14 + 20 + 8
	ipv4 := int32(binary.NativeEndian.Uint16([]byte{8, 0}))
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "GPL", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, 0, asm.Word), // data
		asm.LoadMem(asm.R3, asm.R1, 4, asm.Word), // data_end
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, end),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R4, asm.R2, 12, asm.Half), // EtherType
		asm.JNE.Imm(asm.R4, ipv4, "pass"),
		asm.LoadMem(asm.R4, asm.R2, 14+9, asm.Byte), // protocol
		asm.JNE.Imm(asm.R4, 17, "pass"),
		asm.LoadMem(asm.R4, asm.R2, 14+12, asm.Word), // source
		asm.StoreMem(asm.RFP, -4, asm.R4, asm.Word),
		asm.LoadMapPtr(asm.R1, counts.FD()),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "pass"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word),
		asm.JLT.Imm(asm.R1, quota, "pass"),
		asm.Mov.Imm(asm.R0, int32(datapath.Drop)),
		asm.Return(),
		asm.Mov.Imm(asm.R0, int32(datapath.Pass)).WithSymbol("pass"),
		asm.Return(),
	}})
	if err != nil {
		nettest.Missing(w, err.Error())
	}
	w.Cleanup(func() { prog.Close() })
	w.server.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: eth0.Index, Flags: link.XDPGenericMode})
		if err == nil {
			w.Cleanup(func() { l.Close() })
		}
		return err
	})
	return counts
}
