package tunnel

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/quicway/quicway/internal/udp"
)

// capsule makes a capsule of any type.
func capsule(kind uint64, content []byte) []byte {
	b := quicvarint.Append(nil, kind)
	b = quicvarint.Append(b, uint64(len(content)))
	return append(b, content...)
}

// datagram makes a DATAGRAM capsule of any context.
func datagram(context uint64, payload []byte) []byte {
	return capsule(typeDatagram, append(quicvarint.Append(nil, context), payload...))
}

// readAll reads all datagrams of a stream.
func readAll(from io.Reader, batch int) (all [][]byte, err error) {
	r, out := NewReader(from), make([]udp.Message, batch)
	for {
		n, err := r.Read(out)
		if err != nil {
			return all, err
		}
		for i := range out[:n] {
			for d := range out[i].Segments() {
				all = append(all, bytes.Clone(d))
			}
		}
	}
}

// TestReader checks which datagrams come out of a stream, however it is cut.
func TestReader(t *testing.T) {
	large := bytes.Repeat([]byte{7}, MaxDatagram)
	for _, test := range []struct {
		name   string
		stream [][]byte
		want   [][]byte
		err    error
	}{
		{"datagrams", [][]byte{AppendDatagram(nil, []byte("a")), AppendDatagram(nil, large), AppendDatagram(nil, []byte("b"))},
			[][]byte{[]byte("a"), large, []byte("b")}, io.EOF},
		{"trains", [][]byte{AppendDatagram(nil, []byte("ab")), AppendDatagram(nil, []byte("cd")), AppendDatagram(nil, []byte("e")),
			AppendDatagram(nil, []byte("f")), AppendDatagram(nil, []byte("gh"))},
			[][]byte{[]byte("ab"), []byte("cd"), []byte("e"), []byte("f"), []byte("gh")}, io.EOF},
		{"other types", [][]byte{capsule(0x2575, []byte("x")), capsule(1<<40, bytes.Repeat([]byte{1}, 100_000)), datagram(0, []byte("a"))},
			[][]byte{[]byte("a")}, io.EOF},
		{"other context", [][]byte{datagram(2, []byte("x")), datagram(1<<30, large), datagram(0, []byte("a"))}, [][]byte{[]byte("a")}, io.EOF},
		{"empty", [][]byte{datagram(0, nil), datagram(0, []byte("a"))}, [][]byte{[]byte("a")}, io.EOF},
		{"too large", [][]byte{datagram(0, append(large, 1)), datagram(0, make([]byte, largestUDP)), datagram(0, []byte("a"))}, [][]byte{[]byte("a")}, io.EOF},
		{"larger than UDP", [][]byte{datagram(0, []byte("a")), datagram(0, make([]byte, largestUDP+maxVarint))}, [][]byte{[]byte("a")}, ErrCapsule},
		{"no context", [][]byte{datagram(0, []byte("a")), {typeDatagram, 0}}, [][]byte{[]byte("a")}, ErrCapsule},
		{"half a context", [][]byte{{typeDatagram, 1, 0x40}}, nil, ErrCapsule},
		{"half a capsule", [][]byte{datagram(0, []byte("a")), datagram(0, []byte("bc"))[:4]}, [][]byte{[]byte("a")}, io.EOF},
		{"the longest type", [][]byte{capsule(1<<62-1, nil), datagram(0, []byte("a"))}, [][]byte{[]byte("a")}, io.EOF},
	} {
		stream := bytes.Join(test.stream, nil)
		for name, from := range map[string]io.Reader{
			"at once": bytes.NewReader(stream), "in halves": iotest.HalfReader(bytes.NewReader(stream)), "bytewise": iotest.OneByteReader(bytes.NewReader(stream)),
		} {
			got, err := readAll(from, 2)
			if !errors.Is(err, test.err) || len(got) != len(test.want) {
				t.Errorf("%s, %s: %d datagrams and %v, want %d and %v", test.name, name, len(got), err, len(test.want), test.err)
				continue
			}
			for i := range got {
				if !bytes.Equal(got[i], test.want[i]) {
					t.Errorf("%s, %s: datagram %d is wrong", test.name, name, i)
				}
			}
		}
	}
}

// TestTrains checks which datagrams come out of a stream together.
func TestTrains(t *testing.T) {
	const other = "a capsule of another type"
	for name, test := range map[string]struct {
		stream []string
		want   [][]string // the trains of each Read, with a bar between two datagrams
	}{
		"one size":           {[]string{"ab", "cd", "ef"}, [][]string{{"ab|cd|ef"}}},
		"a smaller one":      {[]string{"ab", "cd", "e", "fg"}, [][]string{{"ab|cd|e", "fg"}}},
		"two smaller ones":   {[]string{"ab", "c", "d"}, [][]string{{"ab|c", "d"}}},
		"a larger one":       {[]string{"a", "b", "cd", "ef"}, [][]string{{"a|b", "cd|ef"}}},
		"skipped":            {[]string{"ab", other, "cd", "", "ef"}, [][]string{{"ab|cd|ef"}}},
		"more than it takes": {[]string{"a", "bc", "def", "gh", "i"}, [][]string{{"a", "bc"}, {"def|gh", "i"}}},
		"more than 64":       {slices.Repeat([]string{"ab"}, 66), [][]string{{strings.Repeat("ab|", 63) + "ab", "ab|ab"}}},
	} {
		var stream []byte
		for _, d := range test.stream {
			if d == other {
				stream = append(stream, capsule(0x2575, []byte(d))...)
			} else {
				stream = AppendDatagram(stream, []byte(d))
			}
		}
		r, out := NewReader(bytes.NewReader(stream)), make([]udp.Message, 2)
		for i, want := range append(test.want, nil) {
			n, err := r.Read(out)
			var got []string
			for _, m := range out[:n] {
				got = append(got, string(bytes.Join(slices.Collect(m.Segments()), []byte("|"))))
			}
			if !slices.Equal(got, want) || (err == io.EOF) != (want == nil) {
				t.Errorf("%s, read %d: got %q and %v, want %q", name, i, got, err, want)
			}
		}
	}
}

// FuzzCapsule checks that a reader of any stream neither panics nor depends on how the stream is
// cut, and that the datagrams that it returns are encoded and read again.
func FuzzCapsule(f *testing.F) {
	for _, seed := range [][]byte{
		AppendDatagram(nil, []byte("a")),
		append(capsule(0x2575, []byte("x")), datagram(2, []byte("b"))...),
		{typeDatagram, 0},
		{typeDatagram, 0xc0, 0, 0, 0, 0, 1, 0, 0},
		{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		datagram(0, make([]byte, MaxDatagram+1)),
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		whole, err := readAll(bytes.NewReader(stream), 32)
		cut, cutErr := readAll(iotest.HalfReader(bytes.NewReader(stream)), 1)
		if len(whole) != len(cut) || errors.Is(err, ErrCapsule) != errors.Is(cutErr, ErrCapsule) {
			t.Fatalf("%d datagrams and %v, cut %d and %v", len(whole), err, len(cut), cutErr)
		}
		var again []byte
		for i, d := range whole {
			if !bytes.Equal(d, cut[i]) || len(d) == 0 || len(d) > MaxDatagram {
				t.Fatalf("datagram %d: %d bytes, cut %d", i, len(d), len(cut[i]))
			}
			again = AppendDatagram(again, d)
		}
		if got, err := readAll(bytes.NewReader(again), 32); len(got) != len(whole) || !errors.Is(err, io.EOF) {
			t.Fatalf("%d datagrams are read again, of %d: %v", len(got), len(whole), err)
		}
	})
}

// TestReaderDoesNotAllocate checks that reading costs no memory for each datagram.
func TestReaderDoesNotAllocate(t *testing.T) {
	stream := bytes.Repeat(AppendDatagram(nil, make([]byte, 1200)), 100)
	from, out := bytes.NewReader(stream), make([]udp.Message, 32)
	r := NewReader(from)
	if n := testing.AllocsPerRun(100, func() {
		from.Reset(stream)
		r.err = nil
		for {
			if _, err := r.Read(out); err != nil {
				return
			}
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestAddress checks that an address of a tunnel has the source of its client, and that each
// number makes another address.
func TestAddress(t *testing.T) {
	for client, source := range map[string]string{
		"192.0.2.1":            "192.0.2.1",
		"::ffff:192.0.2.1":     "192.0.2.1",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::",
	} {
		from := netip.AddrPortFrom(netip.MustParseAddr(client), 5)
		seen := make(map[netip.AddrPort]bool)
		for _, number := range []uint64{0, 1, 1 << 16, 1<<numberBits - 1} {
			at := Address(from, number)
			if got := Source(at.Addr()); !IsAddress(at.Addr()) || got != netip.MustParseAddr(source) || at.Port() != 5 || seen[at] {
				t.Errorf("%s: %v has the source %v, want %s", client, at, got, source)
			}
			seen[at] = true
		}
	}
	for _, other := range []string{"192.0.2.1", "2001:db8::1", "200::1", "::", "::ffff:1.2.3.4", "1.0.0.1"} {
		if a := netip.MustParseAddr(other); IsAddress(a) || Source(a) != a {
			t.Errorf("%s counts as a tunnel", other)
		}
	}
}

// TestPath checks the request's path for names and addresses.
func TestPath(t *testing.T) {
	for host, want := range map[string]string{
		"relay.example": "/.well-known/masque/udp/relay.example/4433/",
		"2001:db8::1":   "/.well-known/masque/udp/2001%3Adb8%3A%3A1/4433/",
		"a/b":           "/.well-known/masque/udp/a%2Fb/4433/",
	} {
		if got := Path(host, 4433); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}
