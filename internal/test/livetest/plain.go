package livetest

import (
	"net"
	"net/netip"

	"github.com/quicway/quicway/cid"
)

// Plain is the relay that one writes first: it reads a packet, looks up its connection ID in a map, and
// writes the packet. Only one goroutine may use it at a time.
type Plain struct {
	Conn   *net.UDPConn
	Routes map[cid.ID]netip.AddrPort
	Sent   func() // is called for each packet that has been sent; nil: nothing is
	buf    [2048]byte
}

// Step forwards one packet, or drops it if it has another ID or cannot be sent. It returns the error of a
// read.
func (p *Plain) Step() error {
	n, _, err := p.Conn.ReadFromUDPAddrPort(p.buf[:])
	if err != nil || n < 1+cid.Len {
		return err
	}
	id, _ := cid.IDFrom(p.buf[1 : 1+cid.Len]) // the length is right
	to, ok := p.Routes[id]
	if !ok {
		return nil
	}
	if _, err := p.Conn.WriteToUDPAddrPort(p.buf[:n], to); err == nil && p.Sent != nil {
		p.Sent()
	}
	return nil
}

// Run forwards packets until the socket is closed, or a read fails otherwise.
func (p *Plain) Run() error {
	for {
		if err := p.Step(); err != nil {
			return err
		}
	}
}
