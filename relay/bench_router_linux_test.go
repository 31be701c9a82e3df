package relay

import (
	"context"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/xdp"
)

// routerTurn is how many packets a router forwards before it is the other one's turn.
const routerTurn = 50_000

// BenchmarkRouter measures how many packets of 1200 bytes with a short header a router forwards with the
// monitor stage, beside another router without it, which takes turns with it. One op is a turn of each. It
// reports medians, also of what a figure is of that of the other router in the same round.
func BenchmarkRouter(b *testing.B) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		b.Run(mode.String(), func(b *testing.B) { benchRouter(b, mode) })
	}
}

func benchRouter(b *testing.B, mode xdp.Mode) {
	without, with := newRouter(b, mode, 0), newRouter(b, mode, 1000)
	defer with.monitor(with.program)()
	without.warm()
	with.warm()
	figures := make(map[string][]float64) // by unit
	for round := range b.N {
		var on, off flooded
		if round%2 == 0 {
			on, off = with.turn(routerTurn), without.turn(routerTurn)
		} else {
			off, on = without.turn(routerTurn), with.turn(routerTurn)
		}
		for unit, f := range map[string]float64{
			"pps": on.pps, "pps-without": off.pps, "of-without-pps": on.pps / off.pps,
			"cpu-ns": on.cpu, "cpu-ns-without": off.cpu, "of-without-cpu": on.cpu / off.cpu,
		} {
			figures[unit] = append(figures[unit], f)
		}
	}
	for unit, all := range figures {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], unit)
	}
}

// router is a host that forwards between a sender and a sink.
type router struct {
	*rig
	program *xdp.Program
}

// newRouter makes a router. It has the monitor stage if it has room for flows.
func newRouter(b *testing.B, mode xdp.Mode, flows int) *router {
	b.Helper()
	r := newRig(b)
	r.sender.Route("10.3.0.0/24", "10.2.0.1")
	r.sink.Route("10.2.0.0/24", "10.3.0.1")
	stages := []xdp.Stage{xdp.RelayStage}
	if flows > 0 {
		stages = append(stages, xdp.MonitorStage)
	}
	program := xdptest.Load(b, &xdp.Config{Stages: stages, Sessions: 1, Flows: flows})
	for _, iface := range []string{"eth0", "eth1"} {
		r.relay.Do(func() error {
			_, err := program.Attach(iface, mode)
			return err
		})
	}
	r.veths()
	r.meetSink()
	r.target = r.to.LocalAddr()
	return &router{r, program}
}

// meetSink makes the sink a permanent neighbor of the router. The kernel sends faster to a neighbor
// that it has asked for its address than to one that has asked first, as a sink that sends does.
func (r *rig) meetSink() {
	r.Helper()
	var sink netlink.Link
	r.sink.Do(func() (err error) {
		sink, err = netlink.LinkByName("eth0")
		return err
	})
	r.relay.Do(func() error {
		port, err := netlink.LinkByName("eth1")
		if err != nil {
			return err
		}
		return netlink.NeighAdd(&netlink.Neigh{
			LinkIndex: port.Attrs().Index, State: netlink.NUD_PERMANENT,
			IP: r.to.LocalAddr().Addr().AsSlice(), HardwareAddr: sink.Attrs().HardwareAddr,
		})
	})
}

// monitor runs one that knows the connection which the flood is of, and returns
// what ends it.
func (r *rig) monitor(program *xdp.Program) func() {
	r.Helper()
	source, err := monitor.Kernel(program)
	if err != nil {
		r.Fatal(err)
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.Context())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = m.Run(ctx) // the context's error
	}()
	// The sink is the client, and the packets have its connection ID.
	if err := r.to.Write(&udp.Message{Data: r.initial(), Remote: r.from.LocalAddr()}); err != nil {
		r.Fatal(err)
	}
	return func() {
		cancel()
		<-ran
		for c := range m.Connections() {
			if c.Confidence == monitor.Proven && c.FromServer.Packets >= r.received.Load() {
				return
			}
			r.Errorf("the monitor has %v of %d packets: %s", c.FromServer, r.received.Load(), c.Evidence)
		}
		r.Error("the monitor has not seen the connection")
	}
}

// initial is a client's first packet.
func (r *rig) initial() []byte {
	r.Helper()
	first, _ := wiretest.FirstByte(wire.Version1, wire.Initial, 0)
	dst, payload := []byte("original"), append([]byte{0x06, 0, 0}, make([]byte, 1150)...)
	h := wire.Header{Type: wire.Initial, First: first, Version: wire.Version1, DstID: dst, SrcID: r.key.ID(cid.Peer, 0).Bytes()}
	header, err := wiretest.AppendLong(nil, &h, make([]byte, 1+len(payload)+wire.Overhead))
	if err != nil {
		r.Fatal(err)
	}
	header = append(header[:len(header)-1-len(payload)-wire.Overhead], 0)
	keys, err := wire.NewInitialKeys(wire.Version1, dst, wire.Client)
	if err != nil {
		r.Fatal(err)
	}
	packet, err := keys.Seal(nil, header, payload)
	if err != nil {
		r.Fatal(err)
	}
	return packet
}
