package udp

import (
	"net"
	"testing"
	"time"
)

// BenchmarkLoopback sends packets of 1200 bytes from one socket to another, in batches, and
// for comparison with WriteTo and ReadFrom. One op is one packet.
func BenchmarkLoopback(b *testing.B) {
	const batch = 32
	for _, bench := range []struct {
		name  string
		train int // datagrams in a message
	}{{"batch", 1}, {"trains", 32}} {
		b.Run(bench.name, func(b *testing.B) {
			from, to := listen(b, "udp", "127.0.0.1:0", nil), listen(b, "udp", "127.0.0.1:0", nil)
			to.SetReadDeadline(time.Time{})
			out := make([]Message, batch/bench.train)
			for i := range out {
				out[i] = Message{Data: pattern(1200 * bench.train), Remote: to.LocalAddr()}
				if bench.train > 1 {
					out[i].SegmentSize = 1200
				}
			}
			in := make([]Message, batch)
			b.ReportAllocs()
			b.SetBytes(1200)
			for done := 0; done < b.N; done += batch {
				if err := from.WriteBatch(out); err != nil {
					b.Fatal(err)
				}
				for n := 0; n < batch; {
					got, err := to.ReadBatch(in)
					if err != nil {
						b.Fatal(err)
					}
					for i := range in[:got] {
						n += in[i].Count()
					}
				}
			}
		})
	}
	b.Run("ReadFrom", func(b *testing.B) {
		from, to := listenNet(b), listenNet(b)
		out, in := pattern(1200), make([]byte, 2048)
		b.ReportAllocs()
		b.SetBytes(1200)
		for b.Loop() {
			if _, err := from.WriteTo(out, to.LocalAddr()); err != nil {
				b.Fatal(err)
			}
			if _, _, err := to.ReadFrom(in); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func listenNet(b testing.TB) net.PacketConn {
	b.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}
