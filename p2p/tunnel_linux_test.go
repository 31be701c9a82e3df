package p2p

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay"
)

// newTunnelLab makes a kernelLab whose relay accepts tunnels, and whose hosts may use them.
func newTunnelLab(t *testing.T, nat nettest.NAT, policy PathPolicy) *kernelLab {
	t.Helper()
	var serving sync.WaitGroup
	t.Cleanup(serving.Wait) // after the relay has stopped
	l := layKernelLab(t, nat, nat)
	var listener net.Listener
	l.relay.Do(func() (err error) {
		listener, err = net.Listen("tcp", kernelRelay)
		return err
	})
	server := l.server
	serving.Go(func() {
		if err := server.ServeTCP(listener); !errors.Is(err, relay.ErrClosed) {
			l.Errorf("ServeTCP: %v", err)
		}
	})
	for _, s := range l.sites {
		s.open(func(c *Config) {
			s.stay(c)
			c.Policy = policy
		})
	}
	return l
}

// stay makes an endpoint open all its sockets, also later ones, on the site's host.
func (s *kernelSite) stay(c *Config) {
	c.Proxy = func(*http.Request) (*url.URL, error) { return nil, nil }
	c.listen = func() (conns []net.PacketConn, err error) {
		err = s.host.Run(func() (err error) {
			conns, err = listenUDP()
			return err
		})
		return conns, err
	}
	c.dialTCP = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		err = s.host.Run(func() (err error) {
			conn, err = new(net.Dialer).DialContext(ctx, network, address)
			return err
		})
		return conn, err
	}
}

// settles waits until the paths are of these kinds, the dialer's first.
func (l *kernelLab) settles(a, b *Conn, kinds [2]PathKind) {
	l.Helper()
	nettest.Eventually(l, fmt.Sprintf("paths of the kinds %v", kinds), func() bool {
		l.alive(a, b)
		return a.Path().Kind == kinds[0] && b.Path().Kind == kinds[1]
	})
}

// blocks are what drops UDP.
var blocks = struct{ host, hostToRelay, gateway, gatewayToRelay func(*kernelSite) }{
	host:           func(s *kernelSite) { s.host.BlockUDP("") },
	hostToRelay:    func(s *kernelSite) { s.host.BlockUDP("198.51.100.2") },
	gateway:        func(s *kernelSite) { s.nat.BlockUDP("") },
	gatewayToRelay: func(s *kernelSite) { s.nat.BlockUDP("198.51.100.2") },
}

// TestKernelUDPBlocked checks that peers connect, and on which paths, where the rules of a host
// or of its gateway drop UDP: all, or only to and from the relay.
func TestKernelUDPBlocked(t *testing.T) {
	for name, test := range map[string]struct {
		nat   nettest.NAT
		block func(*kernelSite)
		sites []int
		kinds [2]PathKind
	}{
		"hosts":             {nettest.NoNAT, blocks.host, []int{0, 1}, [2]PathKind{Tunneled, Tunneled}},
		"gateways":          {nettest.PortRestricted, blocks.gateway, []int{0, 1}, [2]PathKind{Tunneled, Tunneled}},
		"dialer":            {nettest.NoNAT, blocks.host, []int{0}, [2]PathKind{Tunneled, Relayed}},
		"accepter":          {nettest.NoNAT, blocks.host, []int{1}, [2]PathKind{Relayed, Tunneled}},
		"hosts to relay":    {nettest.NoNAT, blocks.hostToRelay, []int{0, 1}, [2]PathKind{Direct, Direct}},
		"gateway, to relay": {nettest.PortRestricted, blocks.gatewayToRelay, []int{0}, [2]PathKind{Tunneled, Relayed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTunnelLab(t, test.nat, PreferDirect)
			for _, i := range test.sites {
				test.block(l.sites[i])
			}
			began := time.Now()
			a, b := l.connect()
			l.Logf("connected after %v", time.Since(began))
			l.settles(a, b, test.kinds)
			l.exchange(a, b, 128<<10)
			nettest.Eventually(l, "a tunnel for each blocked site", func() bool { return l.server.Stats().Tunnels == len(test.sites) })
			l.settles(a, b, test.kinds)
		})
	}
}

// TestKernelUDPBlockedMidTransfer checks that no byte is lost when UDP becomes blocked under a
// transfer, and when it works again.
func TestKernelUDPBlockedMidTransfer(t *testing.T) {
	for name, test := range map[string]struct {
		nat     nettest.NAT
		policy  PathPolicy
		kind    PathKind // without a block
		block   func(*kernelSite)
		unblock func(*kernelSite)
	}{
		"all UDP, direct path":   {nettest.NoNAT, PreferDirect, Direct, blocks.host, func(s *kernelSite) { s.host.UnblockUDP() }},
		"to relay, relayed path": {nettest.PortRestricted, RelayOnly, Relayed, blocks.gatewayToRelay, func(s *kernelSite) { s.nat.UnblockUDP() }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newTunnelLab(t, test.nat, test.policy)
			a, b := l.connect()
			l.becomes(test.kind, a, b)
			flows := []*flow{newFlow(a, b), newFlow(b, a)}
			l.proceed(flows)
			for _, s := range l.sites {
				test.block(s)
			}
			l.becomes(Tunneled, a, b)
			l.proceed(flows)
			for _, s := range l.sites {
				test.unblock(s)
			}
			l.becomes(test.kind, a, b)
			l.proceed(flows)
			for _, f := range flows {
				if err := f.end(); err != nil {
					l.Error(err)
				}
			}
		})
	}
}

// proceed waits until flows have brought more data.
func (l *kernelLab) proceed(flows []*flow) {
	l.Helper()
	for i, f := range flows {
		before := f.got.Load()
		nettest.Eventually(l, fmt.Sprintf("data by flow %d", i), func() bool { return f.got.Load() > before+128<<10 })
	}
}

// flow is a transfer of random data that goes on until it is ended.
type flow struct {
	got    atomic.Int64 // bytes that have arrived
	ending context.CancelFunc
	done   chan error
}

func newFlow(from, to *Conn) *flow {
	ctx, ending := context.WithCancel(context.Background())
	f := &flow{ending: ending, done: make(chan error, 1)}
	go func() { f.done <- f.run(ctx, from, to) }()
	return f
}

// end ends the transfer, and returns an error if other data has arrived than was sent.
func (f *flow) end() error {
	f.ending()
	return <-f.done
}

func (f *flow) run(ending context.Context, from, to *Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*kernelPatience)
	defer cancel()
	out, err := from.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { out.CancelWrite(0) })()
	sent, got := sha256.New(), sha256.New()
	sending := make(chan error, 1)
	go func() { sending <- pourSlowly(ending, io.MultiWriter(out, sent), out) }()
	in, err := to.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { in.CancelRead(0) })()
	if _, err = io.Copy(io.MultiWriter(got, (*counter)(&f.got)), in); err == nil {
		err = <-sending
	}
	if err == nil && !slices.Equal(sent.Sum(nil), got.Sum(nil)) {
		err = errors.New("other bytes have arrived")
	}
	return err
}

// pourSlowly writes 16 KiB every few milliseconds, until ending is done. Then it closes the
// stream.
func pourSlowly(ending context.Context, w io.Writer, stream io.Closer) error {
	source := rand.NewChaCha8([32]byte{1})
	for ending.Err() == nil {
		if _, err := io.CopyN(w, source, 16<<10); err != nil {
			return err
		}
		sleep(ending, 5*time.Millisecond)
	}
	return stream.Close()
}

// counter counts what is written to it.
type counter atomic.Int64

func (c *counter) Write(b []byte) (int, error) {
	(*atomic.Int64)(c).Add(int64(len(b)))
	return len(b), nil
}
