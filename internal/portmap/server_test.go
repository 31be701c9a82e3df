package portmap

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// serve answers UDP on loopback until the test ends.
func serve(t *testing.T, answer func(request []byte) [][]byte) uint16 {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: loopback.AsSlice()})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { conn.Close(); <-done })
	go func() {
		defer close(done)
		b := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDP(b)
			if err != nil {
				return
			}
			for _, a := range answer(b[:n]) {
				_, _ = conn.WriteToUDP(a, from)
			}
		}
	}()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func testRequest() request {
	return request{gateway: loopback, local: loopback, port: 1000, lifetime: time.Hour, nonce: [12]byte{1, 2, 3}}
}

// mapAnswer is a PCP server's answer to a MAP request.
func mapAnswer(b []byte) []byte {
	a := bytes.Clone(b)
	a[1] |= pcpResponse
	a[2], a[3] = 0, 0
	clear(a[8:24])
	external := testExternal.Addr().As16()
	binary.BigEndian.PutUint16(a[42:], testExternal.Port())
	copy(a[44:], external[:])
	return a
}

// changed is b with something else in it, and another external port, or address,
// by which it is known if it is believed.
func changed(b []byte, external int, change func(b []byte) []byte) []byte {
	b = bytes.Clone(b)
	b[external]++
	return change(b)
}

func TestPCP(t *testing.T) {
	requests := make(chan []byte, 100)
	port := serve(t, func(b []byte) [][]byte {
		requests <- bytes.Clone(b)
		good := mapAnswer(b)
		return [][]byte{
			{}, good[:59], b, // nothing, too short, the request itself
			changed(good, 43, func(b []byte) []byte { b[24]++; return b }), // the nonce
			changed(good, 43, func(b []byte) []byte { b[40]++; return b }), // the internal port
			changed(good, 43, func(b []byte) []byte { b[36] = 6; return b }),
			append(bytes.Clone(good), make([]byte, 1100)...),
			good,
		}
	})
	r := testRequest()
	r.external = netip.MustParseAddrPort("203.0.113.2:7")
	m, err := pcp{port}.ask(ctxOf(t), r)
	if want := (Mapping{testExternal, time.Hour, PCP}); err != nil || m != want {
		t.Errorf("got %v, %v, want %v", m, err, want)
	}
	want := "\x02\x01\x00\x00\x00\x00\x0e\x10" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x7f\x00\x00\x01" +
		"\x01\x02\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00" + "\x11\x00\x00\x00\x03\xe8\x00\x07" +
		"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xcb\x00\x71\x02"
	if got := <-requests; string(got) != want {
		t.Errorf("the request: got %x, want %x", got, want)
	}
}

func TestPCPRefused(t *testing.T) {
	for name, answer := range map[string]func([]byte) []byte{
		"result":  func(b []byte) []byte { a := mapAnswer(b); a[3] = 8; return a },
		"NAT-PMP": func([]byte) []byte { return []byte{0, 128, 0, 1, 0, 0, 0, 0} },
	} {
		port := serve(t, func(b []byte) [][]byte { return [][]byte{answer(b)} })
		if _, err := (pcp{port}).ask(ctxOf(t), testRequest()); !errors.Is(err, errResult) {
			t.Errorf("%s: got %v, want %v", name, err, errResult)
		}
	}
}

func natpmpAnswer(b []byte) []byte {
	addr := testExternal.Addr().As4()
	if b[1] == natpmpAddress {
		return append([]byte{0, 128, 0, 0, 0, 0, 0, 9}, addr[:]...)
	}
	a := append([]byte{0, 129, 0, 0, 0, 0, 0, 9}, b[4:6]...)
	a = binary.BigEndian.AppendUint16(a, testExternal.Port())
	return append(a, b[8:12]...)
}

func TestNATPMP(t *testing.T) {
	port := serve(t, func(b []byte) [][]byte {
		good := natpmpAnswer(b)
		return [][]byte{
			{}, b, good[:11], append(bytes.Clone(good), 0),
			changed(good, 11, func(b []byte) []byte { b[1] ^= 3; return b }), // another opcode
			changed(good, 11, func(b []byte) []byte { // another internal port
				if len(b) == natpmpMapLen {
					b[8]++
					return b
				}
				return nil
			}),
			good,
		}
	})
	m, err := natpmp{port}.ask(ctxOf(t), testRequest())
	if want := (Mapping{testExternal, time.Hour, NATPMP}); err != nil || m != want {
		t.Errorf("got %v, %v, want %v", m, err, want)
	}
	port = serve(t, func(b []byte) [][]byte { return [][]byte{{0, 128 | b[1], 0, 2}} })
	if _, err := (natpmp{port}).ask(ctxOf(t), testRequest()); !errors.Is(err, errResult) {
		t.Errorf("refused: got %v, want %v", err, errResult)
	}
}

// A gateway that says nothing, or nothing that counts, is given up with ctx.
func TestSilence(t *testing.T) {
	asked := make(chan struct{}, 100)
	port := serve(t, func(b []byte) [][]byte { asked <- struct{}{}; return [][]byte{b} })
	for _, ask := range []protocol{pcp{port}.ask, natpmp{port}.ask, upnp{netip.AddrPortFrom(loopback, port)}.ask} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := ask(ctx, testRequest())
			done <- err
		}()
		<-asked
		cancel()
		if err := <-done; err == nil {
			t.Error("an answer to nothing")
		}
		for len(asked) > 0 {
			<-asked
		}
	}
}

func FuzzResponse(f *testing.F) {
	r := testRequest()
	f.Add(mapAnswer(appendMap(nil, r)))
	f.Add(natpmpAnswer([]byte{0, 0}))
	f.Add(natpmpAnswer(append([]byte{0, 1, 0, 0, 3, 0xe8}, make([]byte, 6)...)))
	f.Add([]byte("HTTP/1.1 200 OK\r\nLOCATION: http://127.0.0.1/\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, done, err := parseMap(b, r); done && err == nil && (len(b) < pcpMapLen || m.Protocol != PCP) {
			t.Errorf("a mapping %v of %d bytes", m, len(b))
		}
		if _, done, err := parseAddress(b); done && err == nil && len(b) != natpmpAddressLen {
			t.Errorf("an address of %d bytes", len(b))
		}
		if _, _, done, err := parsePort(b, r.port); done && err == nil && len(b) != natpmpMapLen {
			t.Errorf("a port of %d bytes", len(b))
		}
		if u, ok := parseLocation(b); ok && u == nil {
			t.Error("a location that is none")
		}
	})
}
