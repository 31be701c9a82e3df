package livetest

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/quicway/quicway/cid"
)

// TestPlain checks that a packet goes to where its ID leads, and that others are dropped.
func TestPlain(t *testing.T) {
	var conns [3]*net.UDPConn // of the relay, a sender and a sink
	for i := range conns {
		var err error
		if conns[i], err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
	}
	addr := func(i int) netip.AddrPort { return conns[i].LocalAddr().(*net.UDPAddr).AddrPort() }
	key := cid.NewKey()
	sent := 0
	p := &Plain{Conn: conns[0], Routes: map[cid.ID]netip.AddrPort{key.ID(cid.Peer, 0): addr(2)}, Sent: func() { sent++ }}
	known := append([]byte{0x40}, key.ID(cid.Peer, 0).Bytes()...)
	other := append([]byte{0x40}, key.ID(cid.Peer, 1).Bytes()...)
	for _, packet := range [][]byte{nil, {0x40}, known[:cid.Len], other, known} {
		if _, err := conns[1].WriteToUDPAddrPort(packet, addr(0)); err != nil {
			t.Fatal(err)
		}
		if err := p.Step(); err != nil {
			t.Fatal(err)
		}
	}
	if sent != 1 {
		t.Errorf("%d packets have been sent, want 1", sent)
	}
	got := make([]byte, 100)
	if n, from, err := conns[2].ReadFromUDPAddrPort(got); err != nil || string(got[:n]) != string(known) || from != addr(0) {
		t.Errorf("%x has arrived from %v, %v", got[:n], from, err)
	}
	conns[0].Close()
	if err := p.Run(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
