package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
)

func newCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestKeyIDIsThatOfTheKey checks that two certificates with the same key have the same
// KeyID.
func TestKeyIDIsThatOfTheKey(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	a, err := SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := SelfSigned(key)
	if err != nil {
		t.Fatal(err)
	}
	if string(a.Leaf.Raw) == string(b.Leaf.Raw) {
		t.Fatal("two certificates with the same key are equal")
	}
	if CertificateKeyID(a.Leaf) != CertificateKeyID(b.Leaf) {
		t.Error("two certificates with the same key have different key IDs")
	}
	if CertificateKeyID(a.Leaf) == CertificateKeyID(newCertificate(t).Leaf) {
		t.Error("certificates with different keys have the same key ID")
	}
}

func TestPeerKeyIDWithoutCertificate(t *testing.T) {
	if _, err := PeerKeyID(tls.ConnectionState{}); !errors.Is(err, ErrNoCertificate) {
		t.Errorf("got %v, want ErrNoCertificate", err)
	}
}

func TestParseKeyID(t *testing.T) {
	id := CertificateKeyID(newCertificate(t).Leaf)
	for _, s := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := ParseKeyID(s); err != nil || got != id {
			t.Errorf("ParseKeyID(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "x", id.String()[1:], id.String() + "a", strings.Repeat("1", 52), strings.Repeat("a", 51) + "b"} {
		if _, err := ParseKeyID(s); !errors.Is(err, ErrKeyID) {
			t.Errorf("ParseKeyID(%q) = %v, want ErrKeyID", s, err)
		}
	}
}

// TestPinned checks that a key is accepted by its own pin, and by those of the keys that vouch
// for it, in their order and without a gap.
func TestPinned(t *testing.T) {
	keys := make([]ed25519.PrivateKey, 4)
	pins := make([]KeyID, len(keys))
	for i := range keys {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := SelfSigned(key)
		if err != nil {
			t.Fatal(err)
		}
		keys[i], pins[i] = key, CertificateKeyID(cert.Leaf)
	}
	vouched, err := Vouched(keys[0], keys[1:3]...)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := Vouched(keys[3])
	if err != nil {
		t.Fatal(err)
	}
	parse := func(chain ...[]byte) (state tls.ConnectionState) {
		for _, der := range chain {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			state.PeerCertificates = append(state.PeerCertificates, cert)
		}
		return state
	}
	v, s := vouched.Certificate, stranger.Certificate[0]
	many := append([][]byte{}, v[0])
	for range maxVouching {
		many = append(many, v[1])
	}
	for name, test := range map[string]struct {
		chain [][]byte
		want  [4]bool // by pin
	}{
		"none":                {nil, [4]bool{}},
		"the whole chain":     {v, [4]bool{true, true, true, false}},
		"a gap":               {[][]byte{v[0], v[2]}, [4]bool{true}},
		"without vouchers":    {v[:1], [4]bool{true}},
		"a stranger's":        {[][]byte{s, v[1], v[2]}, [4]bool{3: true}},
		"for a stranger":      {[][]byte{v[0], s}, [4]bool{true}},
		"a voucher by itself": {v[1:], [4]bool{1: true, 2: true}},
		"too many":            {append(many, v[2]), [4]bool{true, true}},
	} {
		for i, pin := range pins {
			if got := Pinned(parse(test.chain...), pin); got != test.want[i] {
				t.Errorf("%s: pin %d is accepted: %v, want %v", name, i, got, test.want[i])
			}
		}
	}
}
