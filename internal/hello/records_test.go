package hello

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"testing"
	"time"
)

// firstFlight returns the first bytes that a client of Go sends.
func firstFlight(tb testing.TB, conf *tls.Config) []byte {
	tb.Helper()
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, conf).Handshake() // fails when the test has its bytes
		client.Close()
	}()
	b := make([]byte, 32<<10)
	if err := server.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		tb.Fatal(err)
	}
	n, err := server.Read(b)
	if err != nil {
		tb.Fatal(err)
	}
	return b[:n]
}

// inRecords returns a message in records of n bytes.
func inRecords(msg []byte, n int) (stream []byte) {
	for part := range slices.Chunk(msg, n) {
		stream = append(stream, 22, 3, 1)
		stream = binary.BigEndian.AppendUint16(stream, uint16(len(part)))
		stream = append(stream, part...)
	}
	return stream
}

// message returns a ClientHello of n bytes, of zeros after its header.
func message(n int) []byte {
	msg := make([]byte, n)
	msg[0], msg[1], msg[2], msg[3] = 1, byte((n-4)>>16), byte((n-4)>>8), byte(n-4)
	return msg
}

// next gives a stream to Records in parts of n bytes, and returns how much of it was needed.
func next(stream []byte, n int) (msg []byte, used int, err error) {
	var r Records
	for used = min(n, len(stream)); ; used = min(used+n, len(stream)) {
		if msg, err = r.Next(stream[:used]); !errors.Is(err, ErrMore) || used == len(stream) {
			return msg, used, err
		}
	}
}

// TestRecords checks that a message is found in any records and segments, and not before it
// is complete.
func TestRecords(t *testing.T) {
	real := firstFlight(t, &tls.Config{ServerName: "a.example", NextProtos: []string{"h2", "http/1.1"}})
	if len(real) < 1400 {
		t.Errorf("the ClientHello has %d bytes, want a post-quantum one of two segments", len(real))
	}
	for name, msg := range map[string][]byte{"of Go": real[recordHeader:], "largest": message(MaxMessage), "smallest": message(5)} {
		for _, size := range []int{64, 1000, 1400, maxRecord} {
			stream := append(inRecords(msg, size), 0xff)
			for _, n := range []int{1, 3, 5, 1000, 1448, len(stream)} {
				got, used, err := next(stream, n)
				if err != nil || !bytes.Equal(got, msg) || used < len(stream)-1 {
					t.Errorf("%s, records of %d, segments of %d: %d bytes after %d of %d, %v", name, size, n, len(got), used, len(stream), err)
				}
			}
		}
	}
	hello, err := ParseClient(real[recordHeader:])
	if err != nil || hello.ServerName != "a.example" || !slices.Equal(hello.ALPN, []string{"h2", "http/1.1"}) {
		t.Errorf("got %+v, %v", hello, err)
	}
}

// TestRecordsRefused checks what is not the ClientHello of a TLS stream, and that this is
// known as early as it can be.
func TestRecordsRefused(t *testing.T) {
	long := message(MaxMessage + 1)
	for _, tc := range []struct {
		name   string
		stream []byte
		want   error
		used   int // bytes that are enough to know it
	}{
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), ErrNotTLS, 1},
		{"an alert", []byte{21, 3, 3, 0, 2, 2, 40}, ErrNotTLS, 1},
		{"version 2", []byte{22, 2, 0, 0, 1, 1}, ErrNotTLS, 2},
		{"an empty record", []byte{22, 3, 1, 0, 0, 22}, ErrInvalid, 5},
		{"a record that is too long", []byte{22, 3, 1, 0x40, 1, 1}, ErrInvalid, 5},
		{"a ServerHello", []byte{22, 3, 1, 1, 0, 2, 0, 0, 1}, ErrInvalid, 9},
		{"too long", inRecords(long, maxRecord), ErrTooLong, 9},
		{"too long, in small records", inRecords(long, 2), ErrTooLong, 14},
		{"too many records", inRecords(message(MaxMessage), 1), ErrTooLong, MaxStream},
		{"another record inside", append(inRecords(message(100), 50)[:55], 23, 3, 3, 0, 1, 1), ErrInvalid, 56},
	} {
		if _, used, err := next(tc.stream, 1); !errors.Is(err, tc.want) || used != tc.used {
			t.Errorf("%s: got %v after %d bytes, want %v after %d", tc.name, err, used, tc.want, tc.used)
		}
	}
}

// FuzzRecords checks that the segments of a stream make no difference.
func FuzzRecords(f *testing.F) {
	f.Add(inRecords(message(300), 7), 5)
	f.Add(firstFlight(f, &tls.Config{ServerName: "a.example"}), 1448)
	f.Fuzz(func(t *testing.T, stream []byte, n int) {
		if n < 1 || len(stream) == 0 || len(stream) > 2*MaxStream {
			return
		}
		all, used, err := next(stream, len(stream))
		got, usedByParts, errByParts := next(stream, n)
		if usedByParts > used+n || len(got) > MaxMessage {
			t.Fatalf("%d bytes were needed, %d at once", usedByParts, used)
		}
		// Parts end earlier if something is wrong, or right, before the end.
		if errors.Is(errByParts, err) && !bytes.Equal(got, all) || err == nil && errByParts != nil {
			t.Fatalf("got %x, %v by parts, and %x, %v at once", got, errByParts, all, err)
		}
	})
}
