package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestCryptoFrames(t *testing.T) {
	type frame struct {
		offset uint64
		data   string
	}
	for _, test := range []struct {
		name    string
		payload string
		want    []frame
		wantErr error
	}{
		{"nothing", "", nil, nil},
		{"padding", "\x00\x00\x00", nil, nil},
		{"one", "\x06\x00\x02hi", []frame{{0, "hi"}}, nil},
		{"among others", "\x01\x06\x05\x01x\x00\x02\x09\x00\x01\x00\x00\x00\x06\x00\x01y\x00", []frame{{5, "x"}, {0, "y"}}, nil},
		{"after ECN counts", "\x03\x09\x00\x00\x00\x01\x02\x03\x06\x00\x01y", []frame{{0, "y"}}, nil},
		{"then closed", "\x06\x00\x01y\x1c\x0a\x00\x02no", []frame{{0, "y"}}, nil},
		{"empty", "\x06\x00\x00", []frame{{0, ""}}, nil},
		{"cut", "\x06\x00\x05hi", nil, ErrTruncated},
		{"cut in its type", "\x40", nil, ErrTruncated},
		{"cut in its offset", "\x06\xc0", nil, ErrTruncated},
		{"cut in an ACK", "\x02\x09\x00\x05\x00", nil, ErrTruncated},
		{"ACK of everything", "\x02\x09\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00", nil, ErrTruncated},
		{"cut in the reason", "\x1c\x0a\x00\x09no", nil, ErrTruncated},
		{"a stream", "\x08\x00hi", nil, ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []frame
			var last error
			for f, err := range CryptoFrames([]byte(test.payload)) {
				if last = err; err == nil {
					got = append(got, frame{f.Offset, string(f.Data)})
				}
			}
			if !errors.Is(last, test.wantErr) || len(got) != len(test.want) {
				t.Fatalf("got %v, %v, want %v, %v", got, last, test.want, test.wantErr)
			}
			for i := range got {
				if got[i] != test.want[i] {
					t.Errorf("frame %d is %v, want %v", i, got[i], test.want[i])
				}
			}
		})
	}
}

func hello(n int) []byte {
	b := make([]byte, n)
	b[0], b[1], b[2], b[3] = 1, byte((n-4)>>16), byte((n-4)>>8), byte(n-4)
	for i := 4; i < n; i++ {
		b[i] = byte(i * 7)
	}
	return b
}

// TestCryptoStreamAnyOrder adds overlapping pieces in random order.
func TestCryptoStreamAnyOrder(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		want := hello(4 + rng.IntN(3000))
		var s CryptoStream
		covered := make([]bool, len(want))
		for left := len(want); left > 0; {
			lo := rng.IntN(len(want))
			hi := min(len(want), lo+1+rng.IntN(900))
			if err := s.Add(uint64(lo), want[lo:hi]); err != nil {
				t.Fatal(err)
			}
			for i := lo; i < hi; i++ {
				if !covered[i] {
					covered[i] = true
					left--
				}
			}
			if s.Complete() != (left == 0) {
				t.Fatalf("complete: %v, with %d bytes missing", s.Complete(), left)
			}
		}
		if !bytes.Equal(s.ClientHello(), want) {
			t.Fatal("the ClientHello is not the one that was sent")
		}
	}
}

// TestCryptoStreamKeepsFirst checks that later data cannot overwrite data that has arrived.
func TestCryptoStreamKeepsFirst(t *testing.T) {
	want := hello(100)
	var s CryptoStream
	s.Add(10, want[10:50])
	s.Add(0, append(bytes.Clone(want[:10]), bytes.Repeat([]byte{0xff}, 50)...))
	s.Add(60, want[60:])
	got := s.ClientHello()
	if !bytes.Equal(got[:50], want[:50]) || !bytes.Equal(got[60:], want[60:]) {
		t.Errorf("got %x", got)
	}
	if got[50] != 0xff {
		t.Error("the bytes in the gap were not added")
	}
}

func TestCryptoStreamBounds(t *testing.T) {
	var s CryptoStream
	if s.Complete() || s.ClientHello() != nil {
		t.Error("complete without data")
	}
	for _, offset := range []uint64{MaxClientHello, MaxClientHello - 1, 1 << 61, ^uint64(0)} {
		if err := s.Add(offset, []byte("ab")); !errors.Is(err, ErrCrypto) {
			t.Errorf("piece at %d: %v, want %v", offset, err, ErrCrypto)
		}
	}
	for i := range uint64(maxGaps) {
		if err := s.Add(2*i, []byte{1}); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
	}
	if err := s.Add(5000, []byte{1}); !errors.Is(err, ErrCrypto) {
		t.Errorf("one piece too many: %v, want %v", err, ErrCrypto)
	}
	if err := s.Add(1, []byte{1}); err != nil {
		t.Errorf("a piece that closes a gap: %v", err)
	}
}

func TestCryptoStreamOfServer(t *testing.T) {
	var s CryptoStream
	server := hello(50)
	server[0] = 2
	s.Add(0, server)
	if s.Complete() {
		t.Error("a ServerHello was taken for a ClientHello")
	}
}
