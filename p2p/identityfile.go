package p2p

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"github.com/quicway/quicway/internal/keyfile"
)

const (
	// pemType is the type of a PEM block with a key in PKCS #8 (RFC 7468 §10).
	pemType = "PRIVATE KEY"
	// maxIdentityFile bounds the file of an identity, in bytes. A key takes 119.
	maxIdentityFile = 64 << 10
)

// utf8BOM is what some editors put at the beginning of a text.
var utf8BOM = []byte("\xef\xbb\xbf")

// LoadIdentity reads the identity that [Identity.Save] has written, or
//
//	openssl genpkey -algorithm ed25519 -out FILE
//
// The file is regular, or a symbolic link to a regular file, and has at most 64 KiB. Like
// ssh, LoadIdentity refuses a file that anybody but its owner may read or change, with an
// error that wraps ErrIdentityExposed and says how to correct it. Windows has no such
// permissions: there, the access control list of the folder should exclude others, as in the
// user's profile, and LoadIdentity does not check it.
//
// Other errors wrap ErrMalformedIdentity (see [ParseIdentity]), [fs.ErrNotExist],
// [fs.ErrPermission], or are those of the system. Each names the file.
func LoadIdentity(file string) (*Identity, error) {
	b, err := keyfile.Read(file, maxIdentityFile, keyfile.Secret)
	switch {
	case errors.Is(err, keyfile.ErrExposed):
		return nil, fmt.Errorf("p2p: load identity: %w: %w", ErrIdentityExposed, err)
	case errors.Is(err, keyfile.ErrTooLarge), errors.Is(err, keyfile.ErrIrregular):
		return nil, fmt.Errorf("p2p: load identity: %w: %w", ErrMalformedIdentity, err)
	case err != nil:
		return nil, fmt.Errorf("p2p: load identity: %w", err)
	}
	identity, err := parseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("p2p: load identity: %w: %s: %w", ErrMalformedIdentity, file, err)
	}
	return identity, nil
}

// LoadOrCreateIdentity is [LoadIdentity], but makes a new identity and saves it if the file
// does not exist. Its folder must exist. If several processes do so at once, all of them get
// the same identity.
func LoadOrCreateIdentity(file string) (*Identity, error) {
	identity, err := LoadIdentity(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return identity, err
	}
	if identity, err = NewIdentity(); err != nil {
		return nil, err
	}
	err = identity.Save(file)
	if errors.Is(err, fs.ErrExist) {
		return LoadIdentity(file) // another process was faster
	}
	if err != nil {
		return nil, err
	}
	return identity, nil
}

// Save writes the identity to a new file, as [Identity.PEM], which nobody but the owner of
// the file may read (mode 0600; on Windows, the permissions are those of the folder). The
// file is complete, or not there, also if the process is killed. Save never replaces a file: if
// there is one, or a symbolic link, the error wraps [fs.ErrExist].
func (i *Identity) Save(file string) error {
	text, err := i.PEM()
	if err == nil {
		err = keyfile.Create(file, text)
	}
	if err != nil {
		return fmt.Errorf("p2p: save identity: %w", err)
	}
	return nil
}

// PEM returns the private key as a PEM block of the type "PRIVATE KEY" (PKCS #8, RFC 5958 and
// RFC 8410), which other programs read as well. It is a secret. [ParseIdentity] is the
// reverse.
func (i *Identity) PEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		return nil, fmt.Errorf("p2p: encode identity: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der}), nil
}

// ParseIdentity reads an identity from a text with one PEM block of the type "PRIVATE KEY",
// which holds an Ed25519 key in PKCS #8 (RFC 5958, RFC 8410). What else is in the text, such
// as a certificate, is ignored. If there is no such block, or more than one, if it is
// truncated, encrypted, or holds another key, the error wraps ErrMalformedIdentity and says
// which. It tells nothing of the key.
func ParseIdentity(text []byte) (*Identity, error) {
	identity, err := parseIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("p2p: %w: %w", ErrMalformedIdentity, err)
	}
	return identity, nil
}

func parseIdentity(text []byte) (*Identity, error) {
	der, err := keyBlock(bytes.TrimPrefix(text, utf8BOM))
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("its PRIVATE KEY block is no PKCS #8 key")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it holds a key of type %s, want Ed25519", keyType(parsed))
	}
	return IdentityFromSeed(key.Seed())
}

// keyBlock returns the content of the only block with a private key in PKCS #8.
func keyBlock(text []byte) (key []byte, err error) {
	var other string // the type of a block of another kind
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil && key != nil:
			return key, nil
		case block == nil:
			return nil, noKeyBlock(text, other)
		case block.Type == pemType && key != nil:
			return nil, errors.New("it has more than one private key")
		case block.Type == pemType && len(block.Headers) > 0:
			return nil, errors.New("its PRIVATE KEY block has headers, as encrypted keys of old programs")
		case block.Type == pemType:
			key = block.Bytes
		default:
			other = block.Type
		}
		text = rest
	}
}

// noKeyBlock returns why a text has no private key. rest is what follows the last block, and
// other the type of a block that is there instead.
func noKeyBlock(rest []byte, other string) error {
	switch {
	case bytes.Contains(rest, []byte("-----BEGIN ")):
		return errors.New("its PEM block is truncated or damaged")
	case other == "ENCRYPTED PRIVATE KEY":
		return errors.New("its key is encrypted, want it without a passphrase (openssl pkey -in FILE)")
	case other != "":
		return fmt.Errorf("it has a PEM block of type %.40q, want %q", other, pemType)
	case len(bytes.TrimSpace(rest)) == 0:
		return errors.New("it is empty")
	}
	return errors.New("it is not PEM")
}

// keyType names the type of a private key.
func keyType(key any) string {
	switch key.(type) {
	case *rsa.PrivateKey:
		return "RSA"
	case *ecdsa.PrivateKey:
		return "ECDSA"
	case *ecdh.PrivateKey:
		return "ECDH"
	}
	return fmt.Sprintf("%T", key)
}
