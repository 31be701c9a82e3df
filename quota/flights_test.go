package quota

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/wire"
)

// flight describes a connection of a quic-go client.
type flight struct {
	name    string
	version quic.Version
	curves  []tls.CurveID // nil: the defaults of Go, with ML-KEM
	idLen   int           // length of the server's connection IDs
	retry   bool
	resume  bool // with 0-RTT

	wantNew   int // number of attempts
	wantFirst int // minimum number of datagrams of the first flight
}

var x25519 = []tls.CurveID{tls.X25519}

var flightsOfClients = []flight{
	{name: "v1", version: quic.Version1, idLen: 4, wantNew: 1, wantFirst: 2},
	{name: "v1, long IDs", version: quic.Version1, idLen: 12, wantNew: 1, wantFirst: 2},
	{name: "v1, X25519", version: quic.Version1, curves: x25519, idLen: 4, wantNew: 1, wantFirst: 1},
	{name: "v2", version: quic.Version2, idLen: 4, wantNew: 1, wantFirst: 2},
	{name: "v2, X25519, long IDs", version: quic.Version2, curves: x25519, idLen: 20, wantNew: 1, wantFirst: 1},
	{name: "v1, Retry", version: quic.Version1, idLen: 4, retry: true, wantNew: 2, wantFirst: 2},
	{name: "v2, Retry, long IDs", version: quic.Version2, idLen: 16, retry: true, wantNew: 2, wantFirst: 2},
	{name: "v1, 0-RTT", version: quic.Version1, idLen: 4, resume: true, wantNew: 1, wantFirst: 2},
	{name: "v2, 0-RTT", version: quic.Version2, curves: x25519, idLen: 12, resume: true, wantNew: 1, wantFirst: 1},
}

var (
	flightClient = addr("198.51.100.1:1000")
	flightServer = addr(serverAddr)
)

// record makes the connection and returns the datagrams that the client has sent.
func (f *flight) record(t *testing.T) (sent [][]byte) {
	nettest.Bubble(t, func(t *testing.T) {
		network := nettest.New(1)
		network.Set(nettest.Conditions{Delay: 10 * time.Millisecond})
		client, server := network.Listen(flightClient.String()), network.Listen(serverAddr)
		var mu sync.Mutex
		network.Filter(func(p nettest.Packet) bool {
			mu.Lock()
			defer mu.Unlock()
			if p.From == flightClient {
				sent = append(sent, slices.Clone(p.Data))
			}
			return true
		})
		accepting := &quic.Transport{Conn: server, ConnectionIDLength: f.idLen, VerifySourceAddress: func(net.Addr) bool { return f.retry }}
		ln, err := accepting.ListenEarly(&tls.Config{Certificates: []tls.Certificate{certificate(t)}, NextProtos: []string{"x"}},
			&quic.Config{Versions: []quic.Version{f.version}, Allow0RTT: true, DisablePathMTUDiscovery: true})
		if err != nil {
			t.Fatal(err)
		}
		go echo(ln)
		dialing := &quic.Transport{Conn: client}
		conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"x"}, CurvePreferences: f.curves, ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		f.exchange(t, dialing, conf)
		if f.resume {
			synctest.Wait()
			mu.Lock()
			sent = nil
			mu.Unlock()
			f.exchange(t, dialing, conf)
		}
		for _, c := range []io.Closer{ln, dialing, accepting, client, server} {
			c.Close()
		}
		synctest.Wait()
	})
	return sent
}

func echo(ln *quic.EarlyListener) {
	for {
		conn, err := ln.Accept(context.Background())
		if err != nil {
			return
		}
		stream, err := conn.AcceptStream(context.Background())
		if err != nil {
			continue
		}
		io.Copy(stream, stream)
		stream.Close()
	}
}

// exchange makes a connection, sends data both ways, and closes the connection.
func (f *flight) exchange(t *testing.T, tr *quic.Transport, conf *tls.Config) {
	conn, err := tr.DialEarly(context.Background(), net.UDPAddrFromAddrPort(flightServer), conf,
		&quic.Config{Versions: []quic.Version{f.version}, DisablePathMTUDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := conn.OpenStreamSync(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(make([]byte, 3000)); err != nil {
		t.Fatal(err)
	}
	stream.Close()
	if n, err := io.Copy(io.Discard, stream); n != 3000 || err != nil {
		t.Fatalf("echo of %d bytes, %v", n, err)
	}
	time.Sleep(100 * time.Millisecond) // for the session ticket
	conn.CloseWithError(0, "")
	time.Sleep(100 * time.Millisecond)
}

// TestFlightsOfClients checks that all datagrams with which quic-go opens a connection
// belong to one attempt, of which either all pass or none, and that the datagrams that
// follow pass even if the quota is used up in the meantime.
func TestFlightsOfClients(t *testing.T) {
	coalesced := false
	for _, f := range flightsOfClients {
		t.Run(f.name, func(t *testing.T) {
			sent := f.record(t)
			reasons := f.decideAll(t, sent, -1)
			first := 1
			for first < len(reasons) && reasons[first] == PassFlow {
				first++
			}
			if got := countOf(reasons, PassNew); got != f.wantNew || first < f.wantFirst {
				t.Fatalf("%d attempts, the first of %d datagrams, want %d and %d: %v", got, first, f.wantNew, f.wantFirst, reasons)
			}
			if !f.retry && !slices.Contains(reasons, PassContinuing) {
				t.Errorf("no Initial with the server's ID: %v", reasons)
			}
			if f.resume && !hasType(sent, wire.ZeroRTT) {
				t.Error("no 0-RTT")
			}
			coalesced = coalesced || hasCoalesced(sent)

			for i, why := range f.decideAll(t, sent, 0) {
				attempt := reasons[i] == PassNew || reasons[i] == PassFlow
				if (why == Connections) != attempt && !((f.retry || f.idLen >= minFirstID) && reasons[i] == PassContinuing) {
					t.Errorf("datagram %d, which was %v, is %v when the quota is used up before", i, reasons[i], why)
				}
			}
			last := 0 // the last attempt, which is let in
			for i, why := range reasons {
				if why == PassNew {
					last = i
				}
			}
			for i, why := range f.decideAll(t, sent, last+1) {
				if why != reasons[i] {
					t.Errorf("datagram %d, which was %v, is %v when it was the last that is let in", i, reasons[i], why)
				}
			}
		})
	}
	if !coalesced {
		t.Error("no flight has an Initial coalesced with another packet")
	}
}

// decideAll returns a filter's reasons for the datagrams. The quota is used up before the
// datagram with the number usedUp.
func (f *flight) decideAll(t *testing.T, sent [][]byte, usedUp int) (reasons []Reason) {
	t.Helper()
	c := mustNew(t, &Config{Now: newFakeClock().now, Excess: Drop, Source: Limits{Connections: 1}})
	filter := &filter{c: c, idLen: f.idLen}
	for i, b := range sent {
		if i == usedUp {
			wantAdmit(t, c, flightClient.Addr().String()+":1", true, PassNew)
		}
		pass, why := filter.decide(flightClient, b, c.clock.now())
		if pass == (why == Connections) {
			t.Errorf("datagram %d: pass %v, %v", i, pass, why)
		}
		reasons = append(reasons, why)
	}
	return reasons
}

func countOf(reasons []Reason, what Reason) (n int) {
	for _, why := range reasons {
		if why == what {
			n++
		}
	}
	return n
}

func hasType(sent [][]byte, what wire.Type) bool {
	return slices.ContainsFunc(sent, func(b []byte) bool {
		for h, err := range wire.Packets(b, 4) {
			if err == nil && h.Type == what {
				return true
			}
		}
		return false
	})
}

// hasCoalesced reports whether there is an Initial with another packet behind it.
func hasCoalesced(sent [][]byte) bool {
	return slices.ContainsFunc(sent, func(b []byte) bool {
		h, err := wire.Parse(b, 4)
		return err == nil && h.Type == wire.Initial && len(h.Packet) < len(b)
	})
}
