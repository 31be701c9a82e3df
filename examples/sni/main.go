// Sni relays TLS over TCP, and QUIC, to servers that are chosen by the server name, and prints the
// connections. It has no certificates and no keys: these stay with the servers.
//
//	go run ./examples/sni -listen :8443 -route 'a.test=127.0.0.1:9001' -route '*.b.test=10.0.0.2:443,10.0.0.3:443'
//	go run ./examples/sni -listen :8443 -route 'a.test acme-tls/1=127.0.0.1:9002' -route 'a.test=127.0.0.1:9001' -proxy 2
//
// A route has server names, separated by commas, then the ALPN protocols that it wants, and
// behind "=" its servers. The name "*" is all names, and "" none. With -plain streams that
// are not TLS are relayed as well. With -network tcp or udp it relays only TLS over TCP, or only
// QUIC.
//
// With -splice the kernel relays the connections that are worth it, if it can:
//
//	sudo go run ./examples/sni -listen :8443 -route '*=10.0.0.2:443' -splice eth0,eth1
//
// With -scene it starts three servers of HTTPS and HTTP/3, relays clients to them, and ends:
//
//	go run ./examples/sni -scene
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/quicway/quicway/examples/internal/live"
	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/relay/sni"
)

// options are the values of the flags.
type options struct {
	listen, network string
	routes          []*sni.Route
	plain, from     string
	splice, pin     string
	balance         string
	proxy           int
	hello, idle     time.Duration
	every           time.Duration
	verbose, scene  bool
}

var sniProgram = program.Program{
	Name: "sni",
	Does: "relays TLS and QUIC to servers that are chosen by the server name, and prints the connections",
	Uses: []program.Use{
		{Args: "-listen :8443 -route 'a.test=127.0.0.1:9001' -route '*.b.test=10.0.0.2:443,10.0.0.3:443'", Does: "relay two names"},
		{Args: "-listen :8443 -route '*=10.0.0.2:443' -splice eth0,eth1", Does: "have the kernel relay (Linux, root)"},
		{Args: "-scene", Does: "relay to three servers of this process, and end"},
	},
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", ":8443", "`address` to listen on")
	flag.StringVar(&o.network, "network", "tcp+udp", "`network`: tcp for TLS over TCP, udp for QUIC, or tcp+udp")
	flag.Func("route", "`names=servers` of a route; may be repeated", func(s string) error {
		r, err := parseRoute(s)
		o.routes = append(o.routes, r)
		return err
	})
	flag.StringVar(&o.plain, "plain", "", "`servers` for streams that are not TLS (default: none)")
	flag.StringVar(&o.balance, "balance", "round-robin", "`way` to choose a server: round-robin, least-connections or random-two")
	flag.IntVar(&o.proxy, "proxy", 0, "`version` of the PROXY protocol header that servers get: 1 or 2 (0: none)")
	flag.StringVar(&o.from, "proxy-from", "", "comma-separated `prefixes` of load balancers that send PROXY protocol headers (default: none)")
	flag.StringVar(&o.splice, "splice", "", "comma-separated `interfaces` of clients and servers, between which the kernel relays (default: userspace alone)")
	flag.StringVar(&o.pin, "pin", "", "`directory` on a BPF file system, with which connections in the kernel outlive the process (needs -splice)")
	unpin := flag.Bool("unpin", false, "remove the connections that -pin has left in the kernel, and exit")
	flag.DurationVar(&o.hello, "hello", 0, "`time` in which a client has to send its ClientHello (0: 10 s)")
	flag.DurationVar(&o.idle, "idle", 0, "`time` after which a TCP connection without bytes is reset (0: 10 min; negative: never)")
	flag.DurationVar(&o.every, "every", 2*time.Second, "print the table at this interval (0: only at the end)")
	flag.BoolVar(&o.verbose, "v", false, "log connections")
	flag.BoolVar(&o.scene, "scene", false, "relay to three servers of this process, and end")
	sniProgram.Main(func(ctx context.Context, args []string) error {
		switch err := program.Args(args, 0); {
		case err != nil:
			return err
		case *unpin && o.pin == "":
			return program.Usagef("-unpin needs -pin")
		case *unpin:
			return sni.Unpin(o.pin)
		}
		return run(ctx, &o)
	})
}

// parseRoute parses the value of -route.
func parseRoute(s string) (*sni.Route, error) {
	left, right, ok := strings.Cut(s, "=")
	if !ok {
		return nil, fmt.Errorf("%q has no =, want names=servers", s)
	}
	names, alpn, _ := strings.Cut(left, " ")
	return &sni.Route{Name: left, Names: strings.Split(names, ","), ALPN: strings.Fields(alpn), Upstreams: commas(right)}, nil
}

// commas splits a list at its commas.
func commas(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
}

// config returns the configuration of the relay.
func (o *options) config() (*sni.Config, error) {
	conf := &sni.Config{Routes: o.routes, HelloTimeout: o.hello, IdleTimeout: o.idle}
	if o.plain != "" {
		conf.Routes = append(conf.Routes, &sni.Route{NotTLS: true, Upstreams: commas(o.plain)})
	}
	if len(conf.Routes) == 0 {
		return nil, program.Usagef("no routes: want -route or -scene")
	}
	balance, ok := map[string]sni.Balance{
		"round-robin": sni.RoundRobin, "least-connections": sni.LeastConnections, "random-two": sni.RandomTwo,
	}[o.balance]
	if !ok {
		return nil, program.Usagef("unknown -balance %q", o.balance)
	}
	for _, r := range conf.Routes {
		r.Balance, r.SendProxy = balance, o.proxy
	}
	for _, s := range commas(o.from) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, program.Usagef("-proxy-from: %w", err)
		}
		conf.ProxyFrom = append(conf.ProxyFrom, p)
	}
	switch {
	case o.splice != "":
		conf.Splice = &sni.Splice{Interfaces: commas(o.splice), Pin: o.pin}
	case o.pin != "":
		return nil, program.Usagef("-pin needs -splice")
	}
	if o.verbose {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return conf, nil
}

// run relays until ctx is done.
func run(ctx context.Context, o *options) error {
	if o.scene {
		return runScene(ctx, os.Stdout)
	}
	conf, err := o.config()
	if err != nil {
		return err
	}
	server, err := sni.Listen(ctx, o.network, o.listen, conf)
	if err != nil {
		return err
	}
	fmt.Printf("relaying on %v\n", server.Addr())
	shown, end := context.WithCancel(ctx)
	var showing sync.WaitGroup
	showing.Go(func() {
		live.Show(shown, os.Stdout, o.every, func(w io.Writer) { printTable(w, server) })
	})
	err = server.Run(ctx)
	end()
	showing.Wait()
	printTable(os.Stdout, server)
	return err
}
