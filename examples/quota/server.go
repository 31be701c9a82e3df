package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/examples/internal/live"
	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/quota"
)

// server is an HTTP/3 server with a quota, and the HTTP server for changing its lists.
type server struct {
	o          *options
	kernel     *offload
	controller *quota.Controller
	conn       *net.UDPConn
	admin      net.Listener // nil: none
	handler    http.Handler
	cert       tls.Certificate
}

// newServer opens the sockets and loads the lists. If there is an error, nothing stays
// open.
func newServer(o *options) (_ *server, err error) {
	s := &server{o: o}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.kernel, err = newOffload(o); err != nil {
		return nil, err
	}
	if s.controller, err = quota.New(s.quotaConfig()); err != nil {
		return nil, err
	}
	if o.list != "" {
		if err := s.controller.LoadFile(o.list); err != nil {
			return nil, err
		}
	}
	if s.handler, err = newHandler(o.root); err != nil {
		return nil, err
	}
	if s.cert, err = certificate(o.cert, o.key); err != nil {
		return nil, err
	}
	if err := s.listen(); err != nil {
		return nil, err
	}
	return s, s.kernel.attach(o)
}

// listen opens the sockets.
func (s *server) listen() error {
	addr, err := net.ResolveUDPAddr("udp", s.o.listen)
	if err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if s.conn, err = net.ListenUDP("udp", addr); err != nil {
		return err
	}
	s.admin, err = listenAdmin(s.o.admin)
	return err
}

func (s *server) quotaConfig() *quota.Config {
	conf := s.o.quota
	conf.XDP = s.kernel.program
	if s.o.drop {
		conf.Excess = quota.Drop
	}
	if s.o.verbose {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	return &conf
}

// close closes everything that newServer has opened.
func (s *server) close() error {
	var errs []error
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	if s.controller != nil {
		errs = append(errs, s.controller.Close())
	}
	return errors.Join(append(errs, s.kernel.close())...)
}

// run serves until ctx is done, prints the table, and closes everything.
func (s *server) run(ctx context.Context, out io.Writer) error {
	// When one of the servers stops, the other does as well.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var adminErr error
	running.Go(func() { defer cancel(); adminErr = serveAdmin(ctx, s.admin, s.controller, s.o.list) })
	running.Go(func() {
		live.Show(ctx, out, s.o.every, func(w io.Writer) { printTable(w, s.controller, s.kernel.modes) })
	})
	err := s.serve(ctx)
	cancel()
	running.Wait()
	printTable(out, s.controller, s.kernel.modes)
	s.admin = nil // its server has closed it
	return errors.Join(err, adminErr, s.close())
}

// serve answers requests until ctx is done.
func (s *server) serve(ctx context.Context) error {
	transport, err := s.controller.Transport(&quic.Transport{Conn: s.conn})
	if err != nil {
		return err
	}
	defer transport.Close()
	tlsConf := http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{s.cert}, KeyLogWriter: s.o.debug.Keys()})
	listener, err := transport.ListenEarly(tlsConf, s.o.debug.QUIC(&quic.Config{Allow0RTT: true}))
	if err != nil {
		return err
	}
	server := &http3.Server{Handler: s.controller.Handler(s.handler)}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ServeListener(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

// newHandler returns a handler that echoes a POST, and serves files.
func newHandler(root string) (http.Handler, error) {
	files := http.NotFoundHandler()
	if root != "" {
		if _, err := os.ReadDir(root); err != nil {
			return nil, fmt.Errorf("-root: %w", err)
		}
		files = http.FileServer(http.Dir(root))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", files)
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // an error means that the client is gone
	})
	return mux, nil
}

// certificate reads a certificate, or makes a self-signed one.
func certificate(cert, key string) (tls.Certificate, error) {
	if (cert == "") != (key == "") {
		return tls.Certificate{}, program.Usagef("-cert and -key need each other")
	}
	if cert != "" {
		return tls.LoadX509KeyPair(cert, key)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pki.SelfSigned(private)
}
