package cid

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestIDFrom(t *testing.T) {
	var full [MaxLen + 1]byte
	for i := range full {
		full[i] = byte(0xf0 + i)
	}
	seen := map[ID]bool{}
	for n := range MaxLen + 1 {
		id, err := IDFrom(full[:n])
		if err != nil {
			t.Fatal(err)
		}
		if seen[id] {
			t.Errorf("the ID of %d bytes equals a shorter one", n)
		}
		seen[id] = true
		if id.Len() != n || id.IsZero() != (n == 0) || !bytes.Equal(id.Bytes(), full[:n]) {
			t.Errorf("ID of %d bytes: %v, length %d", n, id, id.Len())
		}
	}
	if _, err := IDFrom(full[:]); !errors.Is(err, ErrLength) {
		t.Errorf("ID of %d bytes: %v, want %v", len(full), err, ErrLength)
	}
}

func TestRoleOf(t *testing.T) {
	for _, test := range []struct {
		id   string
		want Role
	}{{"", Peer}, {"\x7f", Peer}, {"\x80", Relay}, {"\xff\x00", Relay}, {"\x00\xff", Peer}} {
		if got := RoleOf([]byte(test.id)); got != test.want {
			t.Errorf("role of %x is %v, want %v", test.id, got, test.want)
		}
	}
}

func TestIDText(t *testing.T) {
	want, _ := IDFrom([]byte{0, 1, 0xfe, 0xff})
	text, err := want.MarshalText()
	if err != nil || string(text) != "0001feff" {
		t.Fatalf("text %q, %v", text, err)
	}
	var got ID
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for text, wantErr := range map[string]error{
		"0":                      ErrText,
		"xx":                     ErrText,
		strings.Repeat("00", 21): ErrLength,
	} {
		if err := got.UnmarshalText([]byte(text)); !errors.Is(err, wantErr) {
			t.Errorf("%q: %v, want %v", text, err, wantErr)
		}
	}
}

func FuzzIDText(f *testing.F) {
	f.Add("")
	f.Add("0001feff")
	f.Fuzz(func(t *testing.T, text string) {
		var id ID
		if err := id.UnmarshalText([]byte(text)); err != nil {
			return
		}
		if id.String() != strings.ToLower(text) {
			t.Errorf("%q became %q", text, id)
		}
	})
}
