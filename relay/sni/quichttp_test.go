package sni

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/test/nettest"
)

// certificate makes a certificate for names with a key that browsers take.
func certificate(t *testing.T, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// newHTTP3Upstream starts a server of HTTP/3, and of nothing else, whose answer is its name and
// the protocol.
func newHTTP3Upstream(t *testing.T, name string, cert tls.Certificate) string {
	t.Helper()
	conn := udpConn(t, "127.0.0.1:0")
	server := &http3.Server{
		TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "<p>%s by %s</p>", name, r.Proto)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(conn) }()
	t.Cleanup(func() {
		server.Close()
		conn.Close()
		<-served
	})
	return addrOf(conn).String()
}

// TestHTTP3 checks requests to several names by one client, which uses one socket for all
// connections.
func TestHTTP3(t *testing.T) {
	var routes []string
	roots := x509.NewCertPool()
	for _, name := range []string{"a.test", "b.test", "c.test"} {
		cert := certificate(t, name)
		roots.AddCert(cert.Leaf)
		routes = append(routes, name, newHTTP3Upstream(t, name, cert))
	}
	s := newQUICServer(t, &Config{Routes: routesTo(routes...)})
	tr := newTransport(t)
	client := &http.Client{Timeout: patience, Transport: &http3.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots},
		Dial: func(ctx context.Context, _ string, conf *tls.Config, quicConf *quic.Config) (*quic.Conn, error) {
			return tr.DialEarly(ctx, net.UDPAddrFromAddrPort(s.Addr()), conf, quicConf)
		},
	}}
	for range 3 {
		for _, name := range []string{"a.test", "b.test", "c.test"} {
			resp, err := client.Get("https://" + name + "/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if want := "<p>" + name + " by HTTP/3.0</p>"; err != nil || string(body) != want {
				t.Errorf("got %q, %v, want %q", body, err, want)
			}
		}
	}
	if st := s.Stats().QUIC; st.Relayed != 3 {
		t.Errorf("got %+v", st)
	}
}

// TestHTTP3Browser checks that a browser gets a page of each of two servers by HTTP/3 through the
// relay. The servers do not listen on TCP.
func TestHTTP3Browser(t *testing.T) {
	var routes, keys []string
	for _, name := range []string{"a.test", "b.test"} {
		cert := certificate(t, name)
		sum := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo)
		keys = append(keys, base64.StdEncoding.EncodeToString(sum[:]))
		routes = append(routes, name, newHTTP3Upstream(t, name, cert))
	}
	s := newQUICServer(t, &Config{Routes: routesTo(routes...)})
	port := s.Addr().Port()
	for _, name := range []string{"a.test", "b.test"} {
		page := nettest.DumpDOM(t, fmt.Sprintf("https://%s:%d/", name, port), "--enable-quic",
			fmt.Sprintf("--origin-to-force-quic-on=a.test:%d,b.test:%d", port, port),
			"--host-resolver-rules=MAP *.test 127.0.0.1", "--ignore-certificate-errors-spki-list="+strings.Join(keys, ","))
		if want := name + " by HTTP/3.0"; !strings.Contains(page, want) {
			t.Errorf("got %q, want %q", page, want)
		}
	}
	if st := s.Stats().QUIC; st.Relayed < 2 || st.FromUpstreams == 0 {
		t.Errorf("got %+v", st)
	}
}
