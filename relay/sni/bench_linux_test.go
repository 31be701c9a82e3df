package sni

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// benchName is the server name of all connections in benchmarks.
const benchName = "a.test"

// sink is an upstream. What a connection sends first says what it wants: see benchConn.
func sink(b *testing.B) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	hello := len(helloOf(b, benchName))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serveSink(c.(*net.TCPConn), hello, discardCopies)
		}
	}()
	return l.Addr().String()
}

var sinkBuffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// serveSink reads a ClientHello and answers with 1 kB, and discards the rest.
func serveSink(c *net.TCPConn, hello int, discard func(*net.TCPConn) error) {
	defer c.Close()
	if _, err := io.CopyN(io.Discard, c, int64(hello)); err != nil {
		return
	}
	if _, err := c.Write(make([]byte, 1024)); err != nil {
		return
	}
	_ = discard(c) // until the client ends, or resets
}

// discardCopies reads what arrives.
func discardCopies(c *net.TCPConn) error {
	buf := sinkBuffers.Get().(*[256 << 10]byte)
	defer sinkBuffers.Put(buf)
	for {
		if _, err := c.Read(buf[:]); err != nil {
			return err
		}
	}
}

// benchConn opens a connection through a relay to a sink, and waits for its answer.
func benchConn(address string, hello []byte) (*net.TCPConn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(hello); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if _, err := io.ReadFull(c, make([]byte, 1024)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c.(*net.TCPConn), nil
}

// BenchmarkBulk measures how fast bytes go through a relay, in 1 or 16 streams.
func BenchmarkBulk(b *testing.B) {
	const block = 1 << 20
	for _, streams := range []int{1, 16} {
		for _, r := range benchRelays {
			b.Run(fmt.Sprintf("streams=%d/%s", streams, r.name), func(b *testing.B) {
				relay, hello := r.start(b, sink(b)), helloOf(b, benchName)
				var conns []*net.TCPConn
				for range streams {
					c, err := benchConn(relay.address, hello)
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					conns = append(conns, c)
				}
				b.SetBytes(block)
				busy := relay.startTimer(b)
				var all sync.WaitGroup
				for i, c := range conns {
					all.Go(func() {
						data := make([]byte, block)
						for n := i; n < b.N; n += streams {
							if _, err := c.Write(data); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				all.Wait()
				b.StopTimer()
				b.ReportMetric(float64(b.N)*block/1e6/b.Elapsed().Seconds(), "MB/s-relayed")
				relay.report(b, busy, 1e12/block, "ms/GB")
			})
		}
	}
}

// BenchmarkShort measures connections with 1 kB each, eight at the same time.
func BenchmarkShort(b *testing.B) {
	for _, r := range benchRelays {
		b.Run(r.name, func(b *testing.B) {
			relay, hello := r.start(b, sink(b)), helloOf(b, benchName)
			busy := relay.startTimer(b)
			var all sync.WaitGroup
			for i := range 8 {
				all.Go(func() {
					for n := i; n < b.N; n += 8 {
						c, err := benchConn(relay.address, hello)
						if err != nil {
							b.Error(err)
							return
						}
						reset(c) // so that no port is in TIME_WAIT
					}
				})
			}
			all.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "conns/s")
			relay.report(b, busy, 1e6, "us/conn")
		})
	}
}

// BenchmarkMemory measures the memory of the relay's process that a connection takes which
// waits.
func BenchmarkMemory(b *testing.B) {
	const conns = 4000
	relay, hello := startRelay(b, sink(b)), helloOf(b, benchName)
	before := rss(b, relay.pid)
	b.ResetTimer()
	for range b.N {
		var open []*net.TCPConn
		for range conns {
			c, err := benchConn(relay.address, hello)
			if err != nil {
				b.Fatal(err)
			}
			open = append(open, c)
		}
		b.ReportMetric(float64(rss(b, relay.pid)-before)/conns, "B/conn")
		for _, c := range open {
			reset(c)
		}
	}
}
