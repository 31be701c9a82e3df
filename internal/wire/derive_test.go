package wire

import (
	"crypto/hkdf"
	"crypto/sha256"
	"testing"
)

// TestDerivation compares the derivation of keys with that of the standard library.
func TestDerivation(t *testing.T) {
	for d := range numDialects {
		if d == NoDialect {
			continue
		}
		for n := range MaxIDLen + 1 {
			id := []byte("twenty bytes of an ID")[:n]
			want, err := hkdf.Extract(sha256.New, id, derivations[d].salt)
			if err != nil {
				t.Fatal(err)
			}
			secret := hkdfExtract(derivations[d].salt, id)
			if string(secret[:]) != string(want) {
				t.Fatalf("dialect %d, ID of %d bytes: another secret", d, n)
			}
			info := "\x00\x10" + string(rune(6+len(derivations[d].label)+3)) + "tls13 " + derivations[d].label + "key\x00"
			if want, err = hkdf.Expand(sha256.New, want, info, 16); err != nil {
				t.Fatal(err)
			}
			if key := expandLabel(&secret, derivations[d].label, "key", 16); string(key[:16]) != string(want) {
				t.Fatalf("dialect %d, ID of %d bytes: another key", d, n)
			}
		}
	}
	if _, err := DialectV1.InitialKeys(make([]byte, MaxIDLen+1), Client); err == nil {
		t.Error("an ID that is too long: no error")
	}
}

// TestPaddingIsSkipped checks that frames are found behind PADDING of any length.
func TestPaddingIsSkipped(t *testing.T) {
	for n := range 40 {
		payload := append(make([]byte, n), frameCrypto, 0, 1, 'x', framePadding, frameConnClose, 2, 0, 0)
		found := 0
		for f, err := range CryptoFrames(payload[:n+4]) {
			if err != nil || string(f.Data) != "x" {
				t.Fatalf("after %d: got %q, %v", n, f.Data, err)
			}
			found++
		}
		if c, ok := DialectV1.FindClose(payload); found != 1 || !ok || c.Code != 2 {
			t.Errorf("after %d: got %d frames, %v, %v", n, found, c, ok)
		}
	}
}
