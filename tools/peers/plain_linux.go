package main

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/test/livetest"
)

// plainCommand makes this program the plain loop: the program that one writes first.
const plainCommand = "plain"

// startPlain starts the plain loop, with the IDs of the flows.
func startPlain(b *bed) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	var routes strings.Builder
	var begins [][]byte
	for i := range b.shape.flows {
		key := cid.NewKey()
		begins = append(begins, shortHeader(key))
		for counter := range uint64(cid.Ahead) {
			fmt.Fprintf(&routes, "%x %v\n", key.ID(cid.Peer, counter).Bytes(), b.sinkOf(i))
		}
	}
	routes.WriteString("ready\n")
	out, err := b.serve(strings.NewReader(routes.String()), self, plainCommand)
	if err != nil {
		return err
	}
	if _, err := lines(out); err != nil {
		return err
	}
	b.openAll(begins)
	return nil
}

// shortHeader returns the beginning of a packet with the first ID of a key (RFC 9000 §17.3.1).
func shortHeader(key cid.Key) []byte {
	return append([]byte{0x40}, key.ID(cid.Peer, 0).Bytes()...)
}

// servePlain reads lines of an ID and an address, and forwards packets with these IDs to there.
func servePlain(in io.Reader, out io.Writer) error {
	list, err := lines(bufio.NewScanner(in))
	if err != nil {
		return err
	}
	routes := make(map[cid.ID]netip.AddrPort)
	for _, line := range list {
		text, addr, _ := strings.Cut(line, " ")
		b, err := hex.DecodeString(text)
		if err != nil {
			return err
		}
		id, err := cid.IDFrom(b)
		if err != nil {
			return err
		}
		if routes[id], err = netip.ParseAddrPort(addr); err != nil {
			return err
		}
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{Port: relayPort})
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	return (&livetest.Plain{Conn: conn, Routes: routes}).Run()
}
