package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/relay/sni"
)

// clusters is the number of servers of the scene, which are those of kafka1.server.test to
// kafka3.server.test.
const clusters = 3

// sceneSize is the number of bytes that each client of the scene sends, and gets back.
const sceneSize = 4 << 20

func clusterName(i int) string { return fmt.Sprintf("kafka%d.server.test", i+1) }

// runScene starts the servers, each with a certificate for its own name only, and makes
// HTTPS requests to each through the relay. The clients check the certificates, so that
// a wrong route is an error.
func runScene(ctx context.Context, w io.Writer) (err error) {
	conf := &sni.Config{}
	roots := x509.NewCertPool()
	for i := range clusters {
		server, stop, err := serveCluster(clusterName(i), roots)
		if err != nil {
			return err
		}
		defer server.Close()
		defer func() { err = errors.Join(err, stop()) }()
		conf.Routes = append(conf.Routes, &sni.Route{Names: []string{clusterName(i)}, Upstreams: []string{server.Listener.Addr().String()}})
	}
	relay, err := sni.Listen(ctx, "tcp+udp", "127.0.0.1:0", conf)
	if err != nil {
		return err
	}
	ran := make(chan error, 1)
	go func() { ran <- relay.Run(ctx) }()
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		DialContext:       dialOnly(relay.Addr().String()),
		ForceAttemptHTTP2: true,
	}}
	overQUIC := &http3.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, Dial: dialQUICOnly(relay.QUICAddr())}
	for i := range clusters {
		if err = visit(ctx, w, client, clusterName(i)); err != nil {
			break
		}
		if err = visit(ctx, w, &http.Client{Transport: overQUIC}, clusterName(i)); err != nil {
			break
		}
	}
	if err == nil {
		err = wantRefusal(ctx, w, client)
	}
	printTable(w, relay)
	client.CloseIdleConnections()
	// The relay does not see the end of a QUIC connection, so Shutdown would wait for the idle
	// timeout.
	if err := errors.Join(overQUIC.Close(), relay.Close()); err != nil {
		return err
	}
	if ranErr := <-ran; !errors.Is(ranErr, sni.ErrClosed) {
		err = errors.Join(err, ranErr)
	}
	return err
}

// dialOnly returns a dial function that connects to one address, whatever the name is.
func dialOnly(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// dialQUICOnly is dialOnly for HTTP/3.
func dialQUICOnly(to netip.AddrPort) func(context.Context, string, *tls.Config, *quic.Config) (*quic.Conn, error) {
	return func(ctx context.Context, _ string, conf *tls.Config, quicConf *quic.Config) (*quic.Conn, error) {
		return quic.DialAddrEarly(ctx, to.String(), conf, quicConf)
	}
}

// serveCluster starts a server with HTTPS and HTTP/3 at one port.
func serveCluster(name string, roots *x509.CertPool) (server *httptest.Server, stop func() error, err error) {
	err = program.AnyPort(":0", func() (err error) {
		if server, err = newCluster(name, roots); err != nil {
			return err
		}
		if stop, err = serveHTTP3(server); err != nil {
			server.Close()
		}
		return err
	})
	return server, stop, err
}

// serveHTTP3 serves the handler of an HTTPS server by HTTP/3 as well, at the same port.
func serveHTTP3(server *httptest.Server) (stop func() error, err error) {
	conn, err := net.ListenPacket("udp", server.Listener.Addr().String())
	if err != nil {
		return nil, err
	}
	h3 := &http3.Server{Handler: server.Config.Handler, TLSConfig: http3.ConfigureTLSConfig(server.TLS)}
	served := make(chan error, 1)
	go func() { served <- h3.Serve(conn) }() // until it is closed
	return func() error {
		err := errors.Join(h3.Close(), conn.Close())
		if served := <-served; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		return err
	}, nil
}

// visit sends bytes to a server and counts what comes back.
func visit(ctx context.Context, w io.Writer, client *http.Client, name string) error {
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+name+"/", io.LimitReader(rand.Reader, sceneSize))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != sceneSize || resp.Header.Get("Server") != name {
		return fmt.Errorf("%s: %d of %d bytes came back from %q, %v", name, n, sceneSize, resp.Header.Get("Server"), err)
	}
	fmt.Fprintf(w, "%s: %d bytes there and back in %v, %s, %s\n", name, n, time.Since(began).Round(time.Millisecond),
		resp.Proto, tls.VersionName(resp.TLS.Version))
	return nil
}

// wantRefusal checks that the relay refuses a name without a route.
func wantRefusal(ctx context.Context, w io.Writer, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://kafka4.server.test/", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err == nil {
		resp.Body.Close()
		return errors.New("kafka4.server.test was not refused")
	}
	fmt.Fprintf(w, "kafka4.server.test: refused, as it should be: %v\n", err)
	return nil
}

// newCluster starts an HTTPS server that sends back what it gets, and adds its certificate
// to roots.
func newCluster(name string, roots *x509.CertPool) (*httptest.Server, error) {
	cert, err := certificateFor(name)
	if err != nil {
		return nil, err
	}
	roots.AddCert(cert.Leaf)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", name)
		_ = http.NewResponseController(w).EnableFullDuplex() // HTTP/2 always is
		_, _ = io.Copy(w, r.Body)                            // the client counts
	}))
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	server.StartTLS()
	return server, nil
}

// certificateFor makes a certificate for a name, which is its own authority.
func certificateFor(name string) (tls.Certificate, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}
