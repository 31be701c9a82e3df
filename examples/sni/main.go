// Sni relays TLS over TCP to servers that are chosen by the server name, and prints the
// connections. It has no certificates and no keys: these stay with the servers.
//
//	go run ./examples/sni -listen :8443 -route 'a.test=127.0.0.1:9001' -route '*.b.test=10.0.0.2:443,10.0.0.3:443'
//	go run ./examples/sni -listen :8443 -route 'a.test acme-tls/1=127.0.0.1:9002' -route 'a.test=127.0.0.1:9001' -proxy 2
//
// A route has server names, separated by commas, then the ALPN protocols that it wants, and
// behind "=" its servers. The name "*" is all names, and "" none. With -plain streams that
// are not TLS are relayed as well.
//
// With -scene it starts three TLS servers, relays clients to them, and ends:
//
//	go run ./examples/sni -scene
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/quicway/quicway/examples/internal/live"
	"github.com/quicway/quicway/relay/sni"
)

// options are the values of the flags.
type options struct {
	listen         string
	routes         []*sni.Route
	plain, from    string
	balance        string
	proxy          int
	hello, idle    time.Duration
	every          time.Duration
	verbose, scene bool
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", ":8443", "TCP `address` to listen on")
	flag.Func("route", "`names=servers` of a route; may be repeated", func(s string) error {
		r, err := parseRoute(s)
		o.routes = append(o.routes, r)
		return err
	})
	flag.StringVar(&o.plain, "plain", "", "`servers` for streams that are not TLS (default: none)")
	flag.StringVar(&o.balance, "balance", "round-robin", "`way` to choose a server: round-robin, least-connections or random-two")
	flag.IntVar(&o.proxy, "proxy", 0, "`version` of the PROXY protocol header that servers get: 1 or 2 (0: none)")
	flag.StringVar(&o.from, "proxy-from", "", "comma-separated `prefixes` of load balancers that send PROXY protocol headers (default: none)")
	flag.DurationVar(&o.hello, "hello", 0, "`time` in which a client has to send its ClientHello (0: 10 s)")
	flag.DurationVar(&o.idle, "idle", 0, "`time` after which a connection without bytes is reset (0: 10 min; negative: never)")
	flag.DurationVar(&o.every, "every", 2*time.Second, "print the table at this interval (0: only at the end)")
	flag.BoolVar(&o.verbose, "v", false, "log connections")
	flag.BoolVar(&o.scene, "scene", false, "relay to three TLS servers of this process, and end")
	flag.Parse()
	if err := run(&o, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sni:", err)
		os.Exit(1)
	}
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
		return nil, errors.New("no routes: want -route or -scene (see -help)")
	}
	balance, ok := map[string]sni.Balance{
		"round-robin": sni.RoundRobin, "least-connections": sni.LeastConnections, "random-two": sni.RandomTwo,
	}[o.balance]
	if !ok {
		return nil, fmt.Errorf("unknown -balance %q", o.balance)
	}
	for _, r := range conf.Routes {
		r.Balance, r.SendProxy = balance, o.proxy
	}
	for _, s := range commas(o.from) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("-proxy-from: %w", err)
		}
		conf.ProxyFrom = append(conf.ProxyFrom, p)
	}
	if o.verbose {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return conf, nil
}

// run relays until it is interrupted.
func run(o *options, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q (see -help)", args[0])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.scene {
		return runScene(ctx, os.Stdout)
	}
	conf, err := o.config()
	if err != nil {
		return err
	}
	server, err := sni.Listen(ctx, "tcp", o.listen, conf)
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
