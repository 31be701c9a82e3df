// Package traffic writes captures of made-up traffic: connections of QUIC, among TLS over TCP, DNS, audio
// and tunnels. Half of the connections begin as those of quic-go, with a ClientHello in two packets, and the
// others with one that a single packet has room for.
package traffic

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net"
	"time"
)

// Content is what a capture holds.
type Content struct {
	Packets, Bytes int64 // with the headers of the file
	QUICPackets    int64
	Connections    int // of QUIC, all with their ClientHello
}

// NameSuffix is what the server names of the connections of QUIC end with. No two have the same name.
const NameSuffix = ".quic.example"

// active is how many flows there are at the same time.
const active = 256

// generator makes the flows of a capture. Two of them make the same, if they are of one release of Go.
type generator struct {
	random  *rand.Rand
	source  *rand.ChaCha8 // of random
	hellos  [helloKinds]*hello
	opened  int  // flows
	closing bool // flows come to an end
	content Content
}

// Write writes a capture (pcap, Ethernet) of size bytes, and what the flows then take to end. The same size
// gives the same capture, with one release of Go.
func Write(w io.Writer, size int64) (*Content, error) {
	g := &generator{source: rand.NewChaCha8([32]byte([]byte("a capture that is always the same")))}
	g.random = rand.New(g.source)
	for kind := range g.hellos {
		var err error
		if g.hellos[kind], err = newHello(kind); err != nil {
			return nil, fmt.Errorf("make a ClientHello: %w", err)
		}
	}
	out := bufio.NewWriter(w)
	g.write(out, size)
	return &g.content, out.Flush()
}

// write writes packets of all active flows in random order. Errors are those of Flush.
func (g *generator) write(out *bufio.Writer, size int64) {
	const header, record = 24, 16
	file := binary.LittleEndian.AppendUint32(nil, 0xa1b23c4d) // times in ns
	file = append(file, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0)
	_, _ = out.Write(file)
	g.content.Bytes = header
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	flows := make([]func() ([]byte, bool), active)
	for i := range flows {
		flows[i] = g.open()
	}
	for len(flows) > 0 {
		i := g.random.IntN(len(flows))
		frame, ok := flows[i]()
		if g.closing = g.content.Bytes >= size; !ok {
			if !g.closing {
				flows[i] = g.open()
			} else {
				flows[i] = flows[len(flows)-1]
				flows = flows[:len(flows)-1]
			}
			continue
		}
		at = at.Add(time.Duration(1+g.random.IntN(20)) * time.Microsecond)
		head := binary.LittleEndian.AppendUint32(nil, uint32(at.Unix()))
		head = binary.LittleEndian.AppendUint32(head, uint32(at.Nanosecond()))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(frame)))
		head = binary.LittleEndian.AppendUint32(head, uint32(len(frame)))
		_, _ = out.Write(head)
		_, _ = out.Write(frame)
		g.content.Packets++
		g.content.Bytes += int64(record + len(frame))
	}
}

// open opens a flow of a random kind. Each call of the function that it returns makes the next frame.
func (g *generator) open() func() ([]byte, bool) {
	kind := g.audio
	switch n := g.random.IntN(100); {
	case n < 45:
		kind = g.quic
	case n < 65:
		kind = g.tls
	case n < 90:
		kind = g.dns
	case n < 95:
		kind = g.tunnel
	}
	g.opened++
	next, _ := iter.Pull(iter.Seq[[]byte](kind)) // each flow is read to its end
	return next
}

// bulk returns how many packets a flow has after it has been opened: few mostly, and sometimes hundreds.
func (g *generator) bulk() int {
	const least, most = 2, 1000
	for n := least; n < most; n = n*5/4 + 1 {
		if g.random.IntN(4) == 0 {
			return n
		}
	}
	return most
}

// bytes returns so many random bytes.
func (g *generator) bytes(n int) []byte {
	b := make([]byte, n)
	_, _ = g.source.Read(b) // never fails
	return b
}

// The frames pass a router.
var (
	inside  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	outside = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)
