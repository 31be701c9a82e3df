package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/quota"
)

const (
	// maxHeader is the maximum size of a request's header, in bytes.
	maxHeader = 16 << 10
	// idle is how long a connection without requests stays open.
	idle = time.Minute
	// grace is the default of server.grace.
	grace = 5 * time.Second
)

// server serves the same pages over UDP and TCP, under one quota.
type server struct {
	debug      *program.Debug
	controller *quota.Controller
	cert       tls.Certificate
	port       int
	grace      time.Duration // how long requests may take to end when the server stops

	udp       *net.UDPConn
	transport *quota.Transport
	quic      *quota.Listener
	http3     *http3.Server

	tcp  net.Listener
	http *http.Server
}

// newServer opens the sockets. If there is an error, nothing stays open.
func newServer(o *options, pages http.Handler) (_ *server, err error) {
	s := &server{debug: &o.debug, grace: grace}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.cert, err = certificate(o.cert, o.key); err != nil {
		return nil, err
	}
	if s.controller, err = quota.New(&o.quota); err != nil {
		return nil, err
	}
	handler, err := s.routes(pages)
	if err != nil {
		return nil, err
	}
	if err := s.listen(o.listen); err != nil {
		return nil, err
	}
	s.http3 = &http3.Server{Handler: handler, MaxHeaderBytes: maxHeader, IdleTimeout: idle}
	s.http = &http.Server{
		Handler: s.announce(handler), TLSConfig: s.tls(), MaxHeaderBytes: maxHeader,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: idle,
	}
	return s, nil
}

// routes returns the handler of all requests, whatever protocol they come by.
func (s *server) routes(pages http.Handler) (http.Handler, error) {
	login, err := s.controller.Route("POST /login", quota.RouteLimits{Source: quota.RequestLimit{Rate: 0.1, Burst: 5}})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", pages)
	mux.Handle("POST /login", login.Handler(http.HandlerFunc(logIn)))
	return s.controller.Handler(mux), nil
}

// logIn stands for a handler that is worth guessing at.
func logIn(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "wrong password", http.StatusUnauthorized)
}

// announce tells clients that come over TCP that there is HTTP/3 on the same port (RFC 9114
// §3.1.1).
func (s *server) announce(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = s.http3.SetQUICHeaders(w.Header()) // an error means that HTTP/3 is not served yet, or no more
		next.ServeHTTP(w, r)
	})
}

// listen opens the sockets, both with the same port.
func (s *server) listen(address string) (err error) {
	if err := program.AnyPort(address, func() error { return s.open(address) }); err != nil {
		return fmt.Errorf("-listen: %w", err)
	}
	if s.transport, err = s.controller.Transport(&quic.Transport{Conn: s.udp}); err != nil {
		return err
	}
	s.quic, err = s.transport.Listen(http3.ConfigureTLSConfig(s.tls()), s.debug.QUIC(&quic.Config{}))
	return err
}

func (s *server) open(address string) error {
	tcp, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	addr := tcp.Addr().(*net.TCPAddr)
	udp, err := net.ListenUDP("udp", &net.UDPAddr{IP: addr.IP, Port: addr.Port, Zone: addr.Zone})
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	s.tcp, s.udp, s.port = &countedListener{tcp, s.controller}, udp, addr.Port
	return nil
}

func (s *server) tls() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{s.cert}, KeyLogWriter: s.debug.Keys()}
}

// run serves until ctx is done, lets requests end, and closes everything.
func (s *server) run(ctx context.Context) error {
	failed := make(chan error, 2)
	go func() { failed <- s.http3.ServeListener(s.quic) }()
	go func() { failed <- s.http.ServeTLS(s.tcp, "", "") }()
	var err error
	left := 2
	select {
	case <-ctx.Done():
	case err = <-failed:
		left--
	}
	stopping, cancel := context.WithTimeout(context.Background(), s.grace)
	defer cancel()
	var stops sync.WaitGroup
	stops.Go(func() { _ = s.http3.Shutdown(stopping) }) // what has not ended by then is closed
	stops.Go(func() { _ = s.http.Shutdown(stopping) })
	stops.Wait()
	s.close()
	for range left {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// close closes everything that is open.
func (s *server) close() {
	if s.http3 != nil {
		s.http3.Close()
		s.http.Close()
	}
	if s.quic != nil {
		s.quic.Close()
	}
	if s.transport != nil {
		s.transport.Close()
	}
	if s.udp != nil {
		s.udp.Close()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
}
