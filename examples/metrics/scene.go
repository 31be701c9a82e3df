package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/quicway/quicway/metrics"
	"github.com/quicway/quicway/monitor"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/relay/sni"
	"github.com/quicway/quicway/xdp"
)

// patience is how long a round of traffic may take.
const patience = 30 * time.Second

// scene is what the metrics are about.
type scene struct {
	registry   *prometheus.Registry
	alice, bob *p2p.Endpoint
	client     *http.Client   // of an HTTPS server behind the relay by name
	closers    []func() error // the first one is called last
	failed     chan error     // holds the first error of what runs
}

// runs has a function run until close. The program ends if it returns before.
func (s *scene) runs(ctx context.Context, name string, run func(context.Context) error) {
	go func() {
		err := run(ctx)
		if ctx.Err() == nil {
			select {
			case s.failed <- fmt.Errorf("%s has ended: %w", name, err):
			default:
			}
		}
	}()
}

// start starts a relay, two peers, a relay by name, and what the options ask for, and
// registers their metrics.
func (s *scene) start(ctx context.Context, o *options) error {
	s.registry.MustRegister(metrics.BuildInfo())
	program, err := s.startXDP(o.xdp)
	if err == nil {
		err = s.startRelay(ctx, program)
	}
	if err == nil {
		err = s.startByName(ctx)
	}
	if err == nil && o.capture != "" {
		err = s.startMonitor(ctx, o.capture)
	}
	return err
}

// close ends everything that was started.
func (s *scene) close() error {
	var errs []error
	for _, f := range slices.Backward(s.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// onClose has a function called at the end.
func (s *scene) onClose(f func() error) { s.closers = append(s.closers, f) }

// startXDP loads the XDP program of the relay and attaches it to an interface. Without an
// interface there is no program.
func (s *scene) startXDP(name string) (*xdp.Program, error) {
	if name == "" {
		return nil, nil
	}
	program, err := xdp.Load(nil)
	if err != nil {
		return nil, err
	}
	s.onClose(program.Close)
	s.registry.MustRegister(metrics.XDP(program))
	_, err = program.Attach(name, xdp.Auto)
	return program, err
}

// startRelay starts a relay with a quota, and two peers that use it. A label tells the metrics
// of one peer from those of the other.
func (s *scene) startRelay(ctx context.Context, program *xdp.Program) error {
	controller, err := quota.New(nil)
	if err != nil {
		return err
	}
	s.onClose(controller.Close)
	if _, err := controller.Route("POST /login", quota.RouteLimits{Source: quota.RequestLimit{Rate: 1}}); err != nil {
		return err // nobody asks for it here: it shows that a route has its series from the start
	}
	server, err := relay.Listen(ctx, "udp", "127.0.0.1:0", &relay.Config{Quota: controller, XDP: program})
	if err != nil {
		return err
	}
	s.onClose(server.Close)
	s.runs(ctx, "the relay", server.Run)
	pin, err := p2p.ParsePeerID(server.Pin())
	if err != nil {
		return err
	}
	conf := &p2p.Config{Relay: p2p.Relay{Addr: server.Addr().String(), Token: server.Token(), Pin: pin}}
	for name, peer := range map[string]**p2p.Endpoint{"alice": &s.alice, "bob": &s.bob} {
		if *peer, err = p2p.NewEndpoint(conf); err != nil {
			return err
		}
		s.onClose((*peer).Close)
		labels := prometheus.WrapRegistererWith(prometheus.Labels{"peer": name}, s.registry)
		labels.MustRegister(metrics.P2P(*peer))
	}
	s.registry.MustRegister(metrics.Relay(server), metrics.Quota(controller))
	s.runs(ctx, "bob", func(ctx context.Context) error { return answer(ctx, s.bob) })
	return nil
}

// answer accepts connections, and sends back what comes on each of their streams.
func answer(ctx context.Context, bob *p2p.Endpoint) error {
	for {
		conn, err := bob.Accept(ctx)
		if err != nil {
			return err
		}
		go func() {
			for {
				stream, err := conn.AcceptStream(ctx)
				if err != nil {
					return
				}
				_, _ = io.Copy(stream, stream)
				_ = stream.Close()
			}
		}()
	}
}

// startByName starts an HTTPS server, and a relay by name in front of it.
func (s *scene) startByName(ctx context.Context) error {
	upstream := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "hello")
	}))
	s.onClose(func() error { upstream.Close(); return nil })
	server, err := sni.Listen(ctx, "tcp+udp", "127.0.0.1:0", &sni.Config{
		Routes: []*sni.Route{{Names: []string{"example.com"}, Upstreams: []string{upstream.Listener.Addr().String()}}},
	})
	if err != nil {
		return err
	}
	s.onClose(server.Close)
	s.runs(ctx, "the relay by name", server.Run)
	s.registry.MustRegister(metrics.SNI(server))
	s.client = upstream.Client() // trusts the server's certificate, which is for example.com
	transport := s.client.Transport.(*http.Transport)
	transport.DisableKeepAlives = true
	transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Addr().String())
	}
	return nil
}

// startMonitor reads a capture.
func (s *scene) startMonitor(ctx context.Context, file string) error {
	source, err := monitor.OpenFile(file)
	if err != nil {
		return err
	}
	m, err := monitor.New(source, nil)
	if err != nil {
		return errors.Join(err, source.Close())
	}
	s.registry.MustRegister(metrics.Monitor(m))
	return m.Run(ctx)
}

// traffic makes a round of traffic at an interval, until ctx is done.
func (s *scene) traffic(ctx context.Context, every time.Duration) {
	for ctx.Err() == nil {
		if err := s.round(ctx); err != nil && ctx.Err() == nil {
			fmt.Fprintln(os.Stderr, "metrics:", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(every):
		}
	}
}

// round sends some data between the peers, and asks the server behind the relay by name.
func (s *scene) round(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := s.alice.Dial(ctx, s.bob.ID(), nil)
	if err != nil {
		return err
	}
	defer conn.CloseWithError(0, "")
	defer context.AfterFunc(ctx, func() { _ = conn.CloseWithError(0, "") })() // ends Write and Copy
	stream, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write(make([]byte, 64<<10)); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return err
	}
	return s.get(ctx)
}

// get asks the server behind the relay by name for its page.
func (s *scene) get(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://example.com/", nil)
	if err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}
