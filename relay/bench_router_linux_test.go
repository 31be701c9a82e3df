package relay

import (
	"context"
	"fmt"
	"testing"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/wiretest"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/internal/udp"
	"github.com/quicway/quicway/internal/wire"
	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/xdp"
)

// BenchmarkRouter is what a host forwards between two interfaces, packets of 1200
// bytes with a short header, without the monitor and with it.
func BenchmarkRouter(b *testing.B) {
	for _, mode := range []xdp.Mode{xdp.Native, xdp.Generic} {
		for _, flows := range []int{0, 1000} {
			name := map[bool]string{true: "on", false: "off"}[flows > 0]
			b.Run(fmt.Sprintf("%v/%s", mode, name), func(b *testing.B) { benchRouter(b, mode, flows) })
		}
	}
}

func benchRouter(b *testing.B, mode xdp.Mode, flows int) {
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
	if flows > 0 {
		defer r.monitor(program)()
	}
	r.target = r.to.LocalAddr()
	r.flood()
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
