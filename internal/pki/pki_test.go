package pki

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
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
