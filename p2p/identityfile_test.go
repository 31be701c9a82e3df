package p2p

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// block returns a PEM block.
func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// opensslKey is what openssl genpkey -algorithm ed25519 has printed, and opensslID the hash of
// what openssl pkey -pubout -outform DER made of it, in base32.
const (
	opensslKey = `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIDsJ2nXX7c2a1XAGvvHNAW5qGcwT+1Db3+xKiubVZEbT
-----END PRIVATE KEY-----
`
	opensslID = "zwe4uyvi3z6ezdpn77mfh4x5eackwrxecnaliirq7ctcgbcgnwoq"
)

// otherKey returns a key of another kind.
func otherKey(t *testing.T, key any, err error) string {
	t.Helper()
	if err == nil {
		var der []byte
		if der, err = x509.MarshalPKCS8PrivateKey(key); err == nil {
			return block("PRIVATE KEY", der)
		}
	}
	t.Fatal(err)
	return ""
}

// TestParseIdentity checks which texts are an identity, and that errors say what is wrong, and
// tell nothing of the key.
func TestParseIdentity(t *testing.T) {
	identity, err := IdentityFromSeed(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	text, err := identity.PEM()
	if err != nil {
		t.Fatal(err)
	}
	good := string(text)
	ecdsaKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ec := otherKey(t, ecdsaKey, err)
	x25519, err := ecdh.X25519().GenerateKey(rand.Reader)
	ecdhText := otherKey(t, x25519, err)
	cert := block("CERTIFICATE", identity.cert.Certificate[0])
	for _, test := range []struct{ name, text, want string }{
		{"as written", good, ""},
		{"CRLF", strings.ReplaceAll(good, "\n", "\r\n"), ""},
		{"BOM", "\xef\xbb\xbf" + good, ""},
		{"text around it", "the key:\n" + good + "keep it\n", ""},
		{"with its certificate", cert + good, ""},
		{"no end of line", strings.TrimSpace(good), ""},
		{"nothing", "", "it is empty"},
		{"space", " \r\n", "it is empty"},
		{"no PEM", "gopc76ixmmcqpnveeo244ccofbor7js5soz6e6tbsxj3x26jvyrq", "it is not PEM"},
		{"binary", string(identity.Seed()), "it is not PEM"},
		{"truncated", good[:len(good)-30], "truncated"},
		{"damaged", strings.Replace(good, "MC4", "!!!", 1), "truncated or damaged"},
		{"short key", block("PRIVATE KEY", []byte{0x30, 0}), "no PKCS #8 key"},
		{"empty block", block("PRIVATE KEY", nil), "no PKCS #8 key"},
		{"ECDSA", ec, "ECDSA, want Ed25519"},
		{"X25519", ecdhText, "ECDH, want Ed25519"},
		{"certificate", cert, `"CERTIFICATE"`},
		{"OpenSSH", block("OPENSSH PRIVATE KEY", []byte("x")), `"OPENSSH PRIVATE KEY"`},
		{"passphrase", block("ENCRYPTED PRIVATE KEY", []byte("x")), "encrypted"},
		{"old passphrase", "-----BEGIN PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMC4=\n-----END PRIVATE KEY-----\n", "headers"},
		{"two keys", good + good, "more than one"},
	} {
		got, err := ParseIdentity([]byte(test.text))
		switch {
		case test.want == "" && (err != nil || got.ID() != identity.ID()):
			t.Errorf("%s: got %v, %v", test.name, got, err)
		case test.want != "" && (!errors.Is(err, ErrMalformedIdentity) || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		case err != nil && strings.ContainsAny(err.Error(), "\n!"):
			t.Errorf("%s: the error has a part of the text: %q", test.name, err)
		}
	}
}

// TestOpenSSLKey checks that a key that openssl has made has the ID that openssl's public key
// leads to.
func TestOpenSSLKey(t *testing.T) {
	identity, err := ParseIdentity([]byte(opensslKey))
	if err != nil || identity.String() != opensslID {
		t.Errorf("got %v, %v, want %s", identity, err, opensslID)
	}
	if text, err := identity.PEM(); err != nil || string(text) != opensslKey {
		t.Errorf("got %q, %v", text, err)
	}
}

// TestIdentityFile checks that an identity outlives a process, and that its file is secret and
// never replaced.
func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "key")
	if _, err := LoadIdentity(file); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	first, err := LoadOrCreateIdentity(file)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("got mode %v, %v", info.Mode(), err)
	}
	for _, load := range []func(string) (*Identity, error){LoadIdentity, LoadOrCreateIdentity} {
		if again, err := load(file); err != nil || again.ID() != first.ID() || !bytes.Equal(again.Seed(), first.Seed()) {
			t.Errorf("got %v, %v, want %v", again, err, first)
		}
	}
	other, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Save(file); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v, want %v", err, fs.ErrExist)
	}
	if again, err := LoadIdentity(file); err != nil || again.ID() != first.ID() {
		t.Errorf("after a refused save: %v, %v", again, err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v", entries, err)
	}
}

// TestHostileIdentityFiles checks that a file that cannot be an identity is refused, and stays
// as it is.
func TestHostileIdentityFiles(t *testing.T) {
	dir := t.TempDir()
	text, err := os.ReadFile(filepath.Join("testdata", "offer.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, content string
		mode          fs.FileMode
		want          error
		says          string
	}{
		{"huge", strings.Repeat("x", maxIdentityFile+1), 0o600, ErrMalformedIdentity, "too large"},
		{"empty", "", 0o600, ErrMalformedIdentity, "it is empty"},
		{"offer", string(text), 0o600, ErrMalformedIdentity, "not PEM"},
		{"exposed", opensslKey, 0o644, ErrIdentityExposed, "chmod 600"},
	} {
		file := filepath.Join(dir, test.name)
		if err := errors.Join(os.WriteFile(file, []byte(test.content), 0o600), os.Chmod(file, test.mode)); err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS == "windows" && test.want == ErrIdentityExposed {
			continue
		}
		for _, load := range []func(string) (*Identity, error){LoadIdentity, LoadOrCreateIdentity} {
			_, err := load(file)
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), file) {
				t.Errorf("%s: got %v, want %q", test.name, err, test.says)
			}
		}
		if b, err := os.ReadFile(file); err != nil || string(b) != test.content {
			t.Errorf("%s: the file has changed: %v", test.name, err)
		}
	}
	if _, err := LoadOrCreateIdentity(dir); !errors.Is(err, ErrMalformedIdentity) {
		t.Errorf("a folder: got %v", err)
	}
	if _, err := LoadOrCreateIdentity(filepath.Join(dir, "none", "key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing folder: got %v", err)
	}
}

// TestIdentityAtOnce checks that all who create an identity at once have the same one.
func TestIdentityAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	ids := make(chan PeerID, 8)
	var running sync.WaitGroup
	for range cap(ids) {
		running.Go(func() {
			identity, err := LoadOrCreateIdentity(file)
			if err != nil {
				t.Error(err)
				return
			}
			ids <- identity.ID()
		})
	}
	running.Wait()
	close(ids)
	first := <-ids
	for id := range ids {
		if id != first {
			t.Errorf("got %v and %v", first, id)
		}
	}
}

// TestCertificateIsIdentity checks that an identity's certificate has the identity's ID.
func TestCertificateIsIdentity(t *testing.T) {
	identity, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(identity.Certificate().Certificate[0])
	if err != nil || PeerIDOf(parsed) != identity.ID() {
		t.Errorf("got %v, want %v", err, identity)
	}
}
