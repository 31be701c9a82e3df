package quota

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/internal/test/packet"
	"github.com/quicway/quicway/internal/test/xdptest"
	"github.com/quicway/quicway/xdp"
)

// town is a server, a good client, and an attacker, with a router between them.
type town struct {
	*lab
	server, good, bad *nettest.Host
	program           *xdp.Program
	addr              netip.AddrPort
	goodIP, badIP     string
	victimIP          string // another address of the good client's host
}

var townFamilies = []struct{ name, server, good, victim, bad string }{
	{"IPv4", "10.1.0.2", "10.2.0.2", "10.2.0.3", "10.3.0.2"},
	{"IPv6", "fd01::2", "fd02::2", "fd02:0:0:0:1::3", "fd03::2"},
}

// everyMode runs a test with the kernel's quota stage, in both XDP modes and with both
// address families.
func everyMode(t *testing.T, conf func() *Config, test func(*town)) {
	for _, mode := range []xdp.Mode{xdp.Generic, xdp.Native} {
		for family, f := range townFamilies {
			t.Run(mode.String()+"/"+f.name, func(t *testing.T) {
				test(newTown(t, mode, family, conf()))
			})
		}
	}
}

// newHosts makes the hosts of a town, without a server.
func newHosts(t testing.TB) *town {
	t.Helper()
	w := &town{lab: &lab{TB: t, live: make(map[netip.Prefix]int), most: make(map[netip.Prefix]int)}}
	w.server, w.good, w.bad = nettest.NewHost(t), nettest.NewHost(t), nettest.NewHost(t)
	router := nettest.NewHost(t)
	router.Sysctl("net/ipv4/ip_forward", "1")
	router.Sysctl("net/ipv6/conf/all/forwarding", "1")
	router.Sysctl("net/ipv4/conf/all/rp_filter", "0")
	router.Sysctl("net/ipv4/conf/default/rp_filter", "0")
	for i, h := range []*nettest.Host{w.server, w.good, w.bad} {
		net := i + 1
		nettest.Cable(h, "eth0", []string{fmt.Sprintf("10.%d.0.2/24", net), fmt.Sprintf("fd0%d::2/64", net)},
			router, fmt.Sprintf("r%d", net), []string{fmt.Sprintf("10.%d.0.1/24", net), fmt.Sprintf("fd0%d::1/64", net)})
		for to := 1; to <= 3; to++ {
			if to != net {
				h.Route(fmt.Sprintf("10.%d.0.0/24", to), fmt.Sprintf("10.%d.0.1", net))
				h.Route(fmt.Sprintf("fd0%d::/64", to), fmt.Sprintf("fd0%d::1", net))
			}
		}
	}
	w.good.Address("eth0", "10.2.0.3/24")
	return w
}

// settle sets the addresses of the hosts.
func (w *town) settle(family int) {
	f := townFamilies[family]
	w.goodIP, w.victimIP, w.badIP = f.good, f.victim, f.bad
	if family == 1 { // all addresses of the network are one source
		w.victimIP = f.good
	}
	w.addr = netip.AddrPortFrom(netip.MustParseAddr(f.server), 443)
}

func newTown(t *testing.T, mode xdp.Mode, family int, conf *Config) *town {
	t.Helper()
	w := newHosts(t)
	w.settle(family)
	program := xdptest.Load(t, &xdp.Config{Stages: []xdp.Stage{xdp.RelayStage, xdp.QuotaStage}, Sessions: 16})
	w.program = program
	w.server.Do(func() error {
		got, err := program.Attach("eth0", mode)
		if err == nil && got != mode {
			err = fmt.Errorf("attached in mode %v, want %v", got, mode)
		}
		return err
	})
	conf.XDP = program
	w.c = mustNew(t, conf)
	t.Cleanup(func() {
		if err := w.c.Close(); err != nil {
			t.Error(err)
		}
	})
	w.serve()
	return w
}

// serve runs the server until the test ends.
func (w *town) serve() {
	w.Helper()
	conn := w.server.Listen(w.addr.String())
	transport, err := w.c.Transport(&quic.Transport{Conn: conn})
	if err != nil {
		w.Fatal(err)
	}
	w.transport = transport
	conf := http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{certificate(w)}})
	ln, err := w.transport.ListenEarly(conf, &quic.Config{MaxIdleTimeout: time.Minute, Allow0RTT: true})
	if err != nil {
		w.Fatal(err)
	}
	server := &http3.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "served") })}
	var done sync.WaitGroup
	done.Go(func() { server.ServeListener(&censusListener{ln, w.lab}) })
	w.Cleanup(func() {
		server.Close()
		w.transport.Close()
		conn.Close()
		done.Wait()
	})
}

// guest is a socket on a host, with a QUIC transport.
type guest struct {
	w         *town
	transport *quic.Transport
}

func (w *town) guest(h *nettest.Host, ip string) *guest {
	w.Helper()
	return &guest{w, &quic.Transport{Conn: h.Listen(net.JoinHostPort(ip, "0"))}}
}

func (g *guest) close() {
	g.transport.Close()
	g.transport.Conn.Close()
}

func (g *guest) dial(ctx context.Context) (*quic.Conn, error) {
	conf := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}}
	return g.transport.Dial(ctx, net.UDPAddrFromAddrPort(g.w.addr), conf, &quic.Config{KeepAlivePeriod: 5 * time.Second})
}

// visitFrom makes a connection and a request from a host.
func (w *town) visitFrom(h *nettest.Host, ip string, patience time.Duration) error {
	g := w.guest(h, ip)
	defer g.close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := g.dial(ctx)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer conn.CloseWithError(0, "")
	resp, err := get(ctx, conn)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	return err
}

// wantGood checks that the good client is served.
func (w *town) wantGood(visits int) {
	w.Helper()
	for i := range visits {
		if err := w.visitFrom(w.good, w.goodIP, 30*time.Second); err != nil {
			w.Errorf("good visit %d: %v", i, err)
		}
	}
}

// holdFrom makes connections from a host, and keeps them.
func (w *town) holdFrom(h *nettest.Host, ip string, n int) (held []*quic.Conn, guests []*guest) {
	w.Helper()
	for range n {
		g := w.guest(h, ip)
		guests = append(guests, g)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		conn, err := g.dial(ctx)
		cancel()
		if err != nil {
			w.Errorf("connection %d of %s: %v", len(held), ip, err)
			continue
		}
		held = append(held, conn)
	}
	w.Cleanup(func() {
		for _, g := range guests {
			g.close()
		}
	})
	return held, guests
}

// wantAlive checks that each connection can make a request.
func (w *town) wantAlive(held []*quic.Conn) {
	w.Helper()
	for i, conn := range held {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		if _, err := get(ctx, conn); err != nil {
			w.Errorf("connection %d from before the attack: %v", i, err)
		}
		cancel()
	}
}

// flood sends datagrams with any source address from the attacker until stop is called.
func (w *town) flood(every time.Duration, next func(i int) (from netip.AddrPort, data []byte)) (stop func()) {
	w.Helper()
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: w.addr.Addr().As16()})
	if w.addr.Addr().Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: w.addr.Addr().As4()}
	}
	var fd int
	w.bad.Do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		defer unix.Close(fd)
		ticker := time.NewTicker(max(every, time.Millisecond))
		defer ticker.Stop()
		start, i := time.Now(), 0
		for ctx.Err() == nil {
			for ; i < int(time.Since(start)/every) && ctx.Err() == nil; i++ {
				from, data := next(i)
				f := packet.Frame{Src: from, Dst: w.addr, TTL: 64, Payload: data}
				frame := f.Build(make(net.HardwareAddr, 6), make(net.HardwareAddr, 6))
				_ = unix.Sendto(fd, frame[14:], 0, to) // some are lost if the queue is full
			}
			<-ticker.C
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	w.Cleanup(stop)
	return stop
}

// wantDropped waits until the kernel has dropped packets for a reason.
func (w *town) wantDropped(why Reason, n uint64) {
	w.Helper()
	defer func() {
		if w.Failed() {
			w.Logf("%+v", w.c.Stats())
		}
	}()
	nettest.Eventually(w, fmt.Sprintf("the kernel drops %d packets for %v", n, why), func() bool { return w.c.Stats().Kernel[why] >= n })
}

func kernelAttackConf() *Config {
	conf := attackConf(Drop)
	conf.Site = Limits{Connections: -1, HalfOpen: -1, ConnectionRate: -1, AttemptRate: -1}
	return conf
}

// TestKernelParallelDials checks that a source that dials many connections at the same time
// gets five, and that good clients are served.
func TestKernelParallelDials(t *testing.T) {
	everyMode(t, kernelAttackConf, func(w *town) {
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var mu sync.Mutex
		var held []*http3.ClientConn
		for range 30 {
			wg.Go(func() {
				for ctx.Err() == nil {
					if conn := w.insist(ctx); conn != nil {
						mu.Lock()
						held = append(held, conn)
						mu.Unlock()
						return
					}
				}
			})
		}
		w.wantDropped(Connections, 10)
		w.wantGood(10)
		nettest.Eventually(w, "the attacker has all its connections", func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(held) >= 5
		})
		cancel()
		wg.Wait()
		alive := 0 // some were closed when their handshake was complete
		for _, client := range held {
			if _, err := getOn(t.Context(), client); err == nil {
				alive++
			}
		}
		if top := w.c.Top(1); alive != 5 || len(top) != 1 || top[0].Connections != 5 {
			t.Errorf("the attacker has %d connections, the controller knows of %+v, want 5", alive, top)
		}
	})
}

// insist dials from the attacker for up to a second, and returns a connection on which a
// request was served, or nil.
func (w *town) insist(ctx context.Context) *http3.ClientConn {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	g := w.guest(w.bad, w.badIP)
	if conn, err := g.dial(ctx); err == nil {
		client := (&http3.Transport{}).NewClientConn(conn)
		if _, err := getOn(ctx, client); err == nil {
			w.Cleanup(g.close)
			return client
		}
	}
	g.close()
	return nil
}

// TestKernelDialRetry checks a source that has all its connections and dials on: its
// connections stay alive, though the kernel drops its attempts, and when it closes one it
// can open another.
func TestKernelDialRetry(t *testing.T) {
	everyMode(t, kernelAttackConf, func(w *town) {
		held, _ := w.holdFrom(w.bad, w.badIP, 5)
		for range 10 {
			if err := w.visitFrom(w.bad, w.badIP, 300*time.Millisecond); err == nil {
				t.Error("a connection beyond the quota")
			}
		}
		w.wantDropped(Connections, 5)
		w.wantGood(5)
		w.wantAlive(held)
		if top := w.c.Top(1); len(top) != 1 || top[0].Dropped == 0 {
			t.Errorf("most kept out: %+v", top)
		}
		if len(held) > 0 {
			held[0].CloseWithError(0, "")
		}
		if err := w.visitFrom(w.bad, w.badIP, 30*time.Second); err != nil {
			t.Errorf("with room again: %v", err)
		}
		if got := w.mostOf(w.badIP); got != 5 {
			t.Errorf("%d connections at once, want 5", got)
		}
	})
}

// TestKernelGarbageInitials checks that the kernel limits the rate of attempts.
func TestKernelGarbageInitials(t *testing.T) {
	everyMode(t, kernelAttackConf, func(w *town) {
		bad := netip.MustParseAddr(w.badIP)
		stop := w.flood(time.Millisecond/4, func(i int) (netip.AddrPort, []byte) {
			return netip.AddrPortFrom(bad, uint16(1024+i%60000)), garbage()
		})
		w.wantDropped(AttemptRate, 100)
		w.wantGood(10)
		if s := w.c.Stats(); s.HalfOpen > 5 {
			t.Errorf("%d half open, want at most 5", s.HalfOpen)
		}
		for e := range w.c.Events(t.Context()) {
			if e.Source.Contains(bad) && e.Dropped > 0 {
				break
			}
		}
		stop()
		if err := w.visitFrom(w.bad, w.badIP, 30*time.Second); err != nil {
			t.Errorf("after the attack: %v", err)
		}
	})
}

// TestKernelForgedVictim checks that Initials with a victim's address do not lock the victim
// out.
func TestKernelForgedVictim(t *testing.T) {
	everyMode(t, kernelAttackConf, func(w *town) {
		victim := netip.MustParseAddr(w.victimIP)
		stop := w.flood(10*time.Millisecond, func(i int) (netip.AddrPort, []byte) {
			return netip.AddrPortFrom(victim, uint16(20000+i%10000)), garbage()
		})
		nettest.Eventually(w, "the attack fills the half-open pool", func() bool { return w.c.Stats().Retried > 0 })
		held, _ := w.holdFrom(w.good, w.victimIP, 5)
		w.wantAlive(held)
		stop()
	})
}

// TestKernelForgedSources checks a flood in which every packet has another source.
func TestKernelForgedSources(t *testing.T) {
	conf := func() *Config {
		conf := kernelAttackConf()
		conf.Total.HalfOpen = 20
		return conf
	}
	everyMode(t, conf, func(w *town) {
		stop := w.flood(time.Millisecond, func(i int) (netip.AddrPort, []byte) {
			addr := netip.AddrFrom4([4]byte{172, 16, byte(i >> 8), byte(i)})
			if w.addr.Addr().Is6() {
				addr = netip.AddrFrom16([16]byte{0xfd, 9, byte(i >> 8), byte(i), 15: 1})
			}
			return netip.AddrPortFrom(addr, 1000), garbage()
		})
		nettest.Eventually(w, "attempts get a Retry", func() bool { return w.c.Stats().Retried > 20 })
		w.wantGood(10)
		if s := w.c.Stats(); s.HalfOpen > 20 {
			t.Errorf("%d half open, want at most 20", s.HalfOpen)
		}
		stop()
	})
}

// TestKernelPacketFlood checks a flood on an existing connection.
func TestKernelPacketFlood(t *testing.T) {
	conf := func() *Config {
		conf := kernelAttackConf()
		conf.Source.PacketRate, conf.Source.PacketBurst = 500, 500
		return conf
	}
	everyMode(t, conf, func(w *town) {
		held, _ := w.holdFrom(w.bad, w.badIP, 1)
		if len(held) == 0 {
			return
		}
		from := netip.AddrPortFrom(netip.MustParseAddr(w.badIP), uint16(held[0].LocalAddr().(*net.UDPAddr).Port))
		junk := make([]byte, 1000)
		junk[0] = 0x40
		stop := w.flood(time.Millisecond/4, func(int) (netip.AddrPort, []byte) { return from, junk })
		w.wantDropped(PacketRate, 500)
		w.wantGood(3)
		stop()
		w.wantAlive(held)
	})
}

// TestKernelDeny is the demonstration of BINA in the kernel: requests are served, stop when
// their address is denied, and are served again when the entry is removed. When the program
// is detached, Go drops the packets.
func TestKernelDeny(t *testing.T) {
	everyMode(t, func() *Config { return new(Config) }, func(w *town) {
		ask := func(want bool, when string) {
			t.Helper()
			patience := 30 * time.Second
			if !want {
				patience = time.Second
			}
			if err := w.visitFrom(w.bad, w.badIP, patience); (err == nil) != want {
				t.Errorf("%s: %v", when, err)
			}
			w.wantGood(1)
		}
		ask(true, "before")
		source := w.c.Source(netip.MustParseAddr(w.badIP))
		if err := w.c.Deny(source, 0, ""); err != nil {
			t.Fatal(err)
		}
		ask(false, "denied")
		s := w.c.Stats()
		if s.Kernel[Denied] == 0 || s.Dropped[Denied] != s.Kernel[Denied] {
			t.Errorf("%d packets were dropped, of which %d in the kernel, want some and all", s.Dropped[Denied], s.Kernel[Denied])
		}
		for e := range w.c.Entries() {
			if e.Packets == 0 {
				t.Errorf("%v has no packets", e.Prefix)
			}
		}
		w.c.Remove(DenyList, source)
		ask(true, "removed")
		if err := w.c.Deny(source, 0, ""); err != nil {
			t.Fatal(err)
		}
		w.server.Do(func() error { return w.program.Detach("eth0") })
		ask(false, "denied, by Go alone")
		if s := w.c.Stats(); s.Dropped[Denied] == s.Kernel[Denied] {
			t.Error("Go has dropped nothing")
		}
	})
}
