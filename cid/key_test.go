package cid

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// TestKeyID checks IDs against known values: peers and relays of all versions must derive
// the same IDs.
func TestKeyID(t *testing.T) {
	var key Key
	for i := range key {
		key[i] = byte(i)
	}
	for _, test := range []struct {
		role    Role
		counter uint64
		want    string
	}{
		{Peer, 0, "526f9f263dd1e89331c2fdcc"},
		{Relay, 0, "d26f9f263dd1e89331c2fdcc"},
		{Peer, 1, "190a9a8e74cb4b1f1fc6fb22"},
		{Peer, 1 << 40, "37ede219e681cb7344b4d665"},
	} {
		if got := key.ID(test.role, test.counter).String(); got != test.want {
			t.Errorf("ID %d for %v is %s, want %s", test.counter, test.role, got, test.want)
		}
	}
}

// TestKeyIDIsBLAKE2b derives IDs as the package documentation says.
func TestKeyIDIsBLAKE2b(t *testing.T) {
	key := NewKey()
	deriver := key.Deriver(Relay)
	for counter := range uint64(100) {
		mac, err := blake2b.New(12, key[:])
		if err != nil {
			t.Fatal(err)
		}
		mac.Write(binary.BigEndian.AppendUint64(nil, counter))
		want := mac.Sum(nil)
		want[0] |= 0x80
		got := deriver.ID(counter)
		if string(got.Bytes()) != string(want) || got != key.ID(Relay, counter) {
			t.Errorf("ID %d is %v, want %x", counter, got, want)
		}
		if peer := key.ID(Peer, counter); peer.Role() != Peer || string(peer.Bytes()[1:]) != string(want[1:]) {
			t.Errorf("ID %d of a peer is %v", counter, peer)
		}
	}
}

func TestKeyText(t *testing.T) {
	key := NewKey()
	if key == NewKey() {
		t.Fatal("drew the same key twice")
	}
	text, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var got Key
	if err := got.UnmarshalText(text); err != nil || !got.Equal(key) {
		t.Errorf("%s came back as another key, %v", text, err)
	}
	for _, bad := range []string{"", string(text[1:]), string(text) + "A", strings.Repeat("*", len(text))} {
		if err := got.UnmarshalText([]byte(bad)); !errors.Is(err, ErrText) {
			t.Errorf("%q: %v, want %v", bad, err, ErrText)
		}
	}
}

// TestKeyIsNotPrinted checks that fmt does not print a key. Anybody who reads a key in a
// log could move the peer's leg.
func TestKeyIsNotPrinted(t *testing.T) {
	key := NewKey()
	text, _ := key.MarshalText()
	for _, format := range []string{"%v", "%s", "%+v"} {
		if out := fmt.Sprintf(format, key); strings.Contains(out, string(text)) || out != "[secret]" {
			t.Errorf("%s prints %s", format, out)
		}
	}
}

func TestDeriverDoesNotAllocate(t *testing.T) {
	d := NewKey().Deriver(Peer)
	if n := testing.AllocsPerRun(100, func() { d.ID(7) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDeriver(b *testing.B) {
	d := NewKey().Deriver(Peer)
	b.ReportAllocs()
	for i := uint64(0); b.Loop(); i++ {
		d.ID(i)
	}
}
