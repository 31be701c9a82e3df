package p2p

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// listenTCP makes the relay accept tunnels at an address.
func (l *lab) listenTCP(addr string) {
	l.Helper()
	served := make(chan error, 1)
	server, listener := l.server, l.net.ListenTCP(addr)
	go func() { served <- server.ServeTCP(listener) }()
	l.Cleanup(func() {
		if err := <-served; !errors.Is(err, relay.ErrClosed) {
			l.Errorf("ServeTCP: %v", err)
		}
	})
}

// tunneler makes a host that may use tunnels.
func (l *lab) tunneler(change func(*Config)) *host {
	l.Helper()
	from := fmt.Sprintf("198.51.100.%d:2000", l.hosts+1)
	return l.host(func(c *Config) {
		c.dialTCP = func(ctx context.Context, _, address string) (net.Conn, error) {
			return l.net.DialTCP(ctx, from, address)
		}
		c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
		if change != nil {
			change(c)
		}
	})
}

// block drops the UDP packets of hosts, until it is called again.
func (l *lab) block(hosts ...*host) {
	blocked := make(map[netip.Addr]bool)
	for _, h := range hosts {
		blocked[h.conn.Public().Addr()] = true
	}
	l.net.Filter(func(p nettest.Packet) bool { return !blocked[p.From.Addr()] && !blocked[p.To.Addr()] })
}

// becomesKind waits until a connection has a path of a kind, and returns that path.
func (l *lab) becomesKind(c *Conn, kind PathKind, within time.Duration) Path {
	l.Helper()
	ctx, cancel := context.WithTimeout(l.Context(), within)
	defer cancel()
	for p := range c.PathEvents(ctx) {
		if p.Kind == kind {
			return p
		}
	}
	l.Fatalf("the path is %v, want %v", c.Path(), kind)
	panic("unreachable")
}

// TestTunnel checks that peers connect where UDP is blocked at one side or at both, within three
// seconds, and are told so.
func TestTunnel(t *testing.T) {
	for _, blocked := range [][2]bool{{true, false}, {false, true}, {true, true}} {
		t.Run(fmt.Sprint(blocked), func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.listenTCP(relayAddr)
				hosts := [2]*host{l.tunneler(nil), l.tunneler(nil)}
				var cut []*host
				for i, h := range hosts {
					if blocked[i] {
						cut = append(cut, h)
					}
				}
				l.block(cut...)
				began := time.Now()
				a, b := l.connect(hosts[0], hosts[1])
				if took := time.Since(began); took > 3*time.Second {
					l.Errorf("connected after %v", took)
				} else {
					l.Logf("connected after %v", took)
				}
				l.exchange(a, b, 200_000)
				for i, c := range []*Conn{a, b} {
					p, kind, why := c.Path(), Relayed, WhyEstablished
					if blocked[i] {
						kind, why = Tunneled, WhyUDPBlocked
					}
					if p.Kind != kind || p.Why != why || p.Remote.String() != relayAddr || p.Local.Addr() != hosts[i].conn.Public().Addr() {
						l.Errorf("path %v, want %v because of %v", p, kind, why)
					}
				}
				if s := l.server.Stats(); s.Tunnels != len(cut) {
					l.Errorf("%d tunnels, want %d", s.Tunnels, len(cut))
				}
			})
		})
	}
}

// TestTunnelMidTransfer checks that a transfer continues when UDP is blocked at both sides, and
// when it works again.
func TestTunnelMidTransfer(t *testing.T) {
	runLab(t, func(l *lab) {
		l.listenTCP(relayAddr)
		left, right := l.tunneler(nil), l.tunneler(nil)
		a, b := l.connect(left, right)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for range 40 {
				l.exchange(a, b, 30_000)
				time.Sleep(time.Second)
			}
		}()
		time.Sleep(2 * time.Second)
		began := time.Now()
		l.block(left, right)
		for _, c := range []*Conn{a, b} {
			if p := l.becomesKind(c, Tunneled, 10*time.Second); p.Why != WhyUDPBlocked && p.Why != WhyRelayLost {
				l.Errorf("%v, want %v", p, WhyUDPBlocked)
			}
		}
		l.Logf("tunnels after %v", time.Since(began))
		time.Sleep(10 * time.Second)
		l.block()
		began = time.Now()
		for _, c := range []*Conn{a, b} {
			if p := l.becomesKind(c, Relayed, lastUDPRetry+2*time.Second); p.Why != WhyUDPBack {
				l.Errorf("%v, want %v", p, WhyUDPBack)
			}
		}
		l.Logf("UDP after %v", time.Since(began))
		<-done
		l.alive(a, b)
		if s := l.server.Stats(); s.Tunnels != 0 {
			l.Errorf("%d tunnels are left", s.Tunnels)
		}
	})
}

// TestTunnelPort checks that the relay is also reached at TunnelPort, and through a proxy.
func TestTunnelPort(t *testing.T) {
	const proxyAddr = "203.0.113.3:3128"
	for name, proxied := range map[string]bool{"direct": false, "proxy": true} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.listenTCP("192.0.2.1:443")
				proxy := &proxy{lab: l}
				proxy.serve(l.net.ListenTCP(proxyAddr))
				change := func(c *Config) {
					c.Relay.TunnelPort = 443
					if proxied {
						c.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: proxyAddr})
					}
				}
				left, right := l.tunneler(change), l.tunneler(nil)
				l.block(left)
				a, b := l.connect(left, right)
				l.exchange(a, b, 30_000)
				want := "192.0.2.1:443"
				if proxied {
					want = proxyAddr
				}
				if p := a.Path(); p.Kind != Tunneled || p.Remote.String() != want {
					l.Errorf("path %v, want a tunnel through %s", p, want)
				}
				if used := proxy.used.Load() > 0; used != proxied {
					l.Errorf("proxy used: %v", used)
				}
			})
		})
	}
}

// TestTunnelSecureProxy checks that an https proxy shows its own certificate, not that of the
// relay, and that the error about a proxy that is not trusted does not blame the relay.
func TestTunnelSecureProxy(t *testing.T) {
	const proxyAddr = "203.0.113.3:3128"
	template := httptest.NewTLSServer(nil) // for its certificate
	template.Close()
	roots := x509.NewCertPool()
	roots.AddCert(template.Certificate())
	for name, trusted := range map[string]*x509.CertPool{"trusted": roots, "not trusted": x509.NewCertPool()} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				l.listenTCP("192.0.2.1:443")
				proxy := &proxy{lab: l}
				proxy.serve(tls.NewListener(l.net.ListenTCP(proxyAddr), &tls.Config{Certificates: template.TLS.Certificates}))
				left, right := l.tunneler(func(c *Config) {
					c.Relay.TunnelPort = 443
					c.Proxy = http.ProxyURL(&url.URL{Scheme: "https", Host: proxyAddr})
					c.proxyTLS = &tls.Config{RootCAs: trusted, ServerName: "example.com"}
				}), l.tunneler(nil)
				l.block(left)
				if trusted == roots {
					a, b := l.connect(left, right)
					l.exchange(a, b, 30_000)
					if p := a.Path(); p.Kind != Tunneled || p.Remote.String() != proxyAddr {
						l.Errorf("path %v, want a tunnel through the proxy", p)
					}
					return
				}
				_, err := left.Dial(l.Context(), right.ID(), nil)
				if !errors.Is(err, ErrRelayUnreachable) || errors.Is(err, ErrRelayMismatch) || !errors.Is(err, errProxyTLS) {
					l.Errorf("Dial: %v, want one about the proxy", err)
				}
			})
		})
	}
}

// proxy is an HTTP proxy that only knows CONNECT, to port 443.
type proxy struct {
	lab  *lab
	used atomic.Int32
}

func (p *proxy) serve(listener net.Listener) {
	server := &http.Server{Handler: p}
	go server.Serve(listener)
	p.lab.Cleanup(func() { server.Close() })
}

// ServeHTTP implements [http.Handler].
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodConnect || r.URL.Port() != "443" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	to, err := p.lab.net.DialTCP(r.Context(), "203.0.113.3:1", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer to.Close()
	from, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	p.used.Add(1)
	io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
	go func() {
		io.Copy(to, rw)
		to.Close()
	}()
	io.Copy(from, to)
}

// TestTunnelUnavailable checks that the error names both ways if neither leads to the relay, that
// a wrong relay is recognised, and that DisableTunnel is obeyed.
func TestTunnelUnavailable(t *testing.T) {
	for name, test := range map[string]struct {
		listen bool
		change func(*Config)
		want   error
	}{
		"no listener": {false, nil, ErrRelayUnreachable},
		"disabled":    {true, func(c *Config) { c.DisableTunnel = true }, ErrRelayUnreachable},
		"wrong pin":   {true, func(c *Config) { c.Relay.Pin = PeerID{1} }, ErrRelayMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			runLab(t, func(l *lab) {
				if test.listen {
					l.listenTCP(relayAddr)
				}
				h := l.tunneler(test.change)
				l.block(h)
				_, err := h.Dial(l.Context(), h.ID(), nil)
				if !errors.Is(err, test.want) {
					l.Errorf("Dial: %v, want %v", err, test.want)
				}
				if s := l.server.Stats(); s.Tunnels != 0 {
					l.Errorf("%d tunnels", s.Tunnels)
				}
			})
		})
	}
}

// TestTunnelOfferRelay checks that an offer cannot name a relay within this host's network, also
// not by way of a proxy.
func TestTunnelOfferRelay(t *testing.T) {
	runLab(t, func(l *lab) {
		l.listenTCP(relayAddr)
		dialed := false
		left := l.tunneler(nil)
		right := l.tunneler(func(c *Config) {
			c.Relay = Relay{}
			c.OfferRelays = func(netip.AddrPort) bool { return false }
			c.dialTCP = func(context.Context, string, string) (net.Conn, error) {
				dialed = true
				return nil, io.EOF
			}
			c.Proxy = http.ProxyURL(&url.URL{Scheme: "http", Host: "203.0.113.3:3128"})
		})
		offer, results := l.offer(left, right.ID())
		if _, err := right.AcceptOffer(l.Context(), offer); !errors.Is(err, ErrRelayNotAllowed) || dialed {
			l.Errorf("AcceptOffer: %v; dialed: %v", err, dialed)
		}
		left.Close()
		<-results
	})
}

// TestRelayTunnelPort checks the text form of a relay with another TCP port.
func TestRelayTunnelPort(t *testing.T) {
	r := Relay{Addr: "relay.example:4433", Token: "t", TunnelPort: 443}
	if got, err := ParseRelay(r.String()); err != nil || got.TunnelPort != 443 {
		t.Errorf("%s is read as %+v, %v", r, got, err)
	}
	if _, err := ParseRelay("quicway://relay.example:1?tunnel=70000"); !errors.Is(err, ErrMalformedRelay) {
		t.Errorf("a port of 70000: %v", err)
	}
}
