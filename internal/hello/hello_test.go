package hello

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"slices"
	"testing"
)

// goHello returns the ClientHello of crypto/tls for QUIC.
func goHello(tb testing.TB, conf *tls.Config) []byte {
	tb.Helper()
	client := tls.QUICClient(&tls.QUICConfig{TLSConfig: conf})
	client.SetTransportParameters([]byte{1, 2, 3})
	if err := client.Start(context.Background()); err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	for {
		switch e := client.NextEvent(); e.Kind {
		case tls.QUICWriteData:
			return slices.Clone(e.Data)
		case tls.QUICNoEvent:
			tb.Fatal("crypto/tls made no ClientHello")
		}
	}
}

func config() *tls.Config {
	return &tls.Config{ServerName: "name.example", NextProtos: []string{"h3", "h3-29"}, MinVersion: tls.VersionTLS13}
}

func TestParseClient(t *testing.T) {
	c, err := ParseClient(goHello(t, config()))
	if err != nil {
		t.Fatal(err)
	}
	if c.ServerName != "name.example" || !slices.Equal(c.ALPN, []string{"h3", "h3-29"}) || c.Version != tls13 || c.ECH {
		t.Errorf("got %+v", c)
	}
	if !c.PostQuantum() || !slices.Contains(c.KeyShares, uint16(tls.X25519MLKEM768)) || !slices.Contains(c.Groups, uint16(tls.X25519)) {
		t.Errorf("got groups %x, shares %x", c.Groups, c.KeyShares)
	}
	conf := config()
	conf.CurvePreferences = []tls.CurveID{tls.X25519}
	if c, err = ParseClient(goHello(t, conf)); err != nil || c.PostQuantum() {
		t.Errorf("got %v, post-quantum %v", err, c.PostQuantum())
	}
}

// TestCut checks that cut messages are invalid.
func TestCut(t *testing.T) {
	msg := goHello(t, config())
	for n := range msg {
		if _, err := ParseClient(msg[:n]); err == nil {
			t.Fatalf("%d bytes of %d are a ClientHello", n, len(msg))
		}
	}
}

// TestJA4 checks the example in FoxIO's specification, with q (QUIC) for t (TCP).
func TestJA4(t *testing.T) {
	c := Client{
		Version: tls13, HasServerName: true, ServerName: "x", ALPN: []string{"h2", "http/1.1"},
		Ciphers: []uint16{0x0a0a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035},
		Extensions: []uint16{0xdada, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005, 0x0023, 0x0012, 0x002b,
			0xff01, 0x000b, 0x000a, 0x0015, 0x1a1a},
		Signatures: []uint16{0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601},
	}
	if got, want := c.JA4(), "q13d1516h2_8daaf6152771_e5627efa2ab1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for alpn, want := range map[string]string{"h3": "h3", "": "00", "\xab": "ab", "\x12\xff": "1f", "a\xcd": "6d", "z": "zz"} {
		c := Client{Ciphers: []uint16{1}, ALPN: []string{alpn}}
		if got := c.JA4()[8:10]; got != want {
			t.Errorf("ALPN %q: got %s, want %s", alpn, got, want)
		}
	}
}

func TestParseServer(t *testing.T) {
	exts := []byte{0, 0x2b, 0, 2, 3, 4, 0, 0x33, 0, 4, 0x11, 0xec, 0, 0}
	body := append([]byte{3, 3}, make([]byte, 33)...)
	body = append(body, 0x13, 0x02, 0)
	body = binary.BigEndian.AppendUint16(body, uint16(len(exts)))
	body = append(body, exts...)
	msg := append([]byte{2, 0, 0, byte(len(body))}, body...)
	s, err := ParseServer(msg)
	if err != nil || s.Version != tls13 || CipherName(s.Cipher) != "TLS_AES_256_GCM_SHA384" || GroupName(s.Group) != "X25519MLKEM768" {
		t.Errorf("got %+v, %v", s, err)
	}
	for n := range msg {
		if _, err := ParseServer(msg[:n]); err == nil {
			t.Fatalf("%d bytes of %d are a ServerHello", n, len(msg))
		}
	}
}

// FuzzHello checks that every valid ClientHello has a fingerprint of the right length.
func FuzzHello(f *testing.F) {
	f.Add(goHello(f, config()))
	f.Add([]byte{2, 0, 0, 0})
	f.Fuzz(func(t *testing.T, msg []byte) {
		if c, err := ParseClient(msg); err == nil && len(c.JA4()) != 36 {
			t.Fatalf("fingerprint %q", c.JA4())
		}
		ParseServer(msg)
	})
}
