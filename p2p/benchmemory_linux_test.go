package p2p

import "testing"

// benchMany is how many of a thing BenchmarkMemory makes.
const benchMany = 100

// BenchmarkMemory measures the memory of an idle endpoint, which has two sockets and no relay, and of a
// connection with both ends: by quic-go alone, and over a relay, with the relay's session.
func BenchmarkMemory(b *testing.B) {
	b.Run("endpoint", func(b *testing.B) {
		benchMemory(b, func() {
			e, err := NewEndpoint(&Config{DisablePortMapping: true}, loopbackSocket(b), loopbackSocket(b))
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { e.Close() })
		})
	})
	b.Run("plain", func(b *testing.B) {
		connect := newPlainDialer(b)
		benchMemory(b, func() { _ = connect() }) // the end of the benchmark ends them
	})
	b.Run("relayed", func(b *testing.B) {
		connect := newMailboxDialer(b)
		benchMemory(b, func() { _ = connect() }) // the end of the benchmark ends them
	})
}

// benchMemory measures what each thing costs that a function makes.
func benchMemory(b *testing.B, make func()) {
	b.Helper()
	for range b.N {
		make() // what the first one costs is not counted
		before := ownMemory(0)
		for range benchMany {
			make()
		}
		after := ownMemory(0)
		each := func(n, before uint64) float64 { return (float64(n) - float64(before)) / benchMany }
		b.ReportMetric(each(after.Heap, before.Heap)/1000, "kB-heap")
		b.ReportMetric(each(after.Stacks, before.Stacks)/1000, "kB-stacks")
		b.ReportMetric(each(after.RSS, before.RSS)/1000, "kB-rss")
		b.ReportMetric(each(after.Goroutines, before.Goroutines), "goroutines")
	}
}
