package ports

import (
	"io"
	"net"
	"testing"
)

// benchChunk is the number of bytes of each write.
const benchChunk = 1 << 20

// BenchmarkForward sends through a forwarded TCP connection, and, for comparison, on a stream of
// the same connection between the peers, which goes through a relay of this host. One op is 1 MiB.
func BenchmarkForward(b *testing.B) {
	b.Run("stream", func(b *testing.B) {
		c, d := newLab(b).connect()
		stream, err := c.OpenStream()
		if err != nil {
			b.Fatal(err)
		}
		benchSend(b, stream, func() io.Reader {
			in, err := d.AcceptStream(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			return in
		})
	})
	b.Run("forward", func(b *testing.B) {
		l := newLab(b)
		accepted := make(chan *net.TCPConn, 1)
		spec := Spec{Network: "tcp", Target: l.server(func(c *net.TCPConn) { accepted <- c })}
		a, _ := l.sessions(l.conf(), l.conf())
		c := l.client("tcp", l.listen(spec, l.conf(), fixed{a}))
		benchSend(b, c, func() io.Reader {
			server := <-accepted
			b.Cleanup(func() { server.Close() })
			return server
		})
	})
}

// benchSend sends b.N MiB to w. They arrive at the reader that accept returns.
func benchSend(b *testing.B, w io.Writer, accept func() io.Reader) {
	chunk := make([]byte, benchChunk)
	if _, err := w.Write(chunk[:1]); err != nil {
		b.Fatal(err)
	}
	r := accept()
	received := make(chan error, 1)
	b.SetBytes(benchChunk)
	b.ResetTimer()
	go func() {
		_, err := io.CopyN(io.Discard, r, int64(b.N)*benchChunk+1)
		received <- err
	}()
	for range b.N {
		if _, err := w.Write(chunk); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-received; err != nil {
		b.Fatal(err)
	}
}
