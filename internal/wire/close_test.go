package wire

import (
	"bytes"
	"testing"
)

func TestFindClose(t *testing.T) {
	crypto := []byte{frameCrypto, 0, 2, 0x1c, 0x1c}
	refused := []byte{frameConnClose, 0x02, 0x00, 0x04, 'b', 'u', 's', 'y'}
	for name, test := range map[string]struct {
		dialect Dialect
		payload []byte
		want    Close
		ok      bool
		code    string
	}{
		"transport":         {DialectV1, refused, Close{false, 2, []byte("busy")}, true, "CONNECTION_REFUSED"},
		"after others":      {DialectV2, bytes.Join([][]byte{{0, 0, 1}, {frameACK, 0, 0, 0, 0}, crypto, refused}, nil), Close{false, 2, []byte("busy")}, true, "CONNECTION_REFUSED"},
		"application":       {DialectV1, []byte{frameAppClose, 0x41, 0x00, 0}, Close{true, 0x100, nil}, true, "CRYPTO_ERROR (close notify)"},
		"application error": {Draft29, []byte{frameConnClose, 0x0c, 0, 0}, Close{true, 0xc, nil}, true, "APPLICATION_ERROR"},
		"alert":             {DialectV1, []byte{frameConnClose, 0x41, 0x28, 0x06, 0}, Close{false, 0x128, nil}, true, "CRYPTO_ERROR (handshake failure)"},
		"no error":          {Draft25, []byte{frameConnClose, 0, 0, 0}, Close{}, true, "NO_ERROR"},
		"version":           {DialectV1, []byte{frameConnClose, 0x11, 0, 0}, Close{false, 0x11, nil}, true, "VERSION_NEGOTIATION_ERROR"},
		"unknown":           {DialectV1, []byte{frameConnClose, 0x80, 1, 2, 3, 0, 0}, Close{false, 0x10203, nil}, true, ""},
		"none":              {DialectV1, append(crypto, 0, 0), Close{}, false, ""},
		"old draft":         {Draft22, refused, Close{}, false, ""},
		"Google":            {GoogleT051, refused, Close{}, false, ""},
		"after an error":    {DialectV1, append([]byte{0x08}, refused...), Close{}, false, ""},
		"nothing":           {DialectV1, nil, Close{}, false, ""},
	} {
		got, ok := test.dialect.FindClose(test.payload)
		if ok != test.ok || got.Application != test.want.Application || got.Code != test.want.Code || !bytes.Equal(got.Reason, test.want.Reason) {
			t.Errorf("%s: got %+v, %v, want %+v, %v", name, got, ok, test.want, test.ok)
		}
		if ok && got.Name() != test.code {
			t.Errorf("%s: got %q, want %q", name, got.Name(), test.code)
		}
	}
	for n := range refused {
		if c, ok := DialectV1.FindClose(refused[:n]); ok {
			t.Errorf("%d bytes are %+v", n, c)
		}
	}
}
