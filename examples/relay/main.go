// Relay runs a relay and prints the URL that peers need, with its token.
//
//	go run ./examples/relay -listen :4433 -host relay.example.org
//
// With -xdp the kernel forwards what it can, on these interfaces (Linux, root):
//
//	go run ./examples/relay -listen :4433 -xdp eth0
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

func main() {
	listen := flag.String("listen", ":4433", "UDP `address` to serve on")
	host := flag.String("host", "", "name or IP address at which peers reach this host (default: that of -listen, or 127.0.0.1)")
	secret := flag.String("secret", "", "`file` with the relay's secret, made if missing, so that peers survive a restart (default: a new secret each time)")
	ifaces := flag.String("xdp", "", "`interfaces` on which the kernel forwards, with commas between (default: none)")
	var mode xdp.Mode
	flag.TextVar(&mode, "xdp-mode", xdp.Auto, "`mode` of -xdp: auto, native or generic")
	stats := flag.Duration("stats", 0, "print counters at this interval (0: only at the end)")
	verbose := flag.Bool("v", false, "log sessions")
	flag.Parse()
	if err := run(*listen, *host, *secret, *ifaces, mode, *stats, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(listen, host, secretFile, ifaces string, mode xdp.Mode, every time.Duration, verbose bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	conf := &relay.Config{}
	if verbose {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if secretFile != "" {
		secret, err := loadSecret(secretFile)
		if err != nil {
			return err
		}
		conf.Secret = secret
	}
	if ifaces != "" {
		program, err := attach(strings.Split(ifaces, ","), mode, conf.Logger)
		if err != nil {
			return err
		}
		defer program.Close()
		conf.XDP = program
	}
	server, err := relay.Listen(ctx, "udp", listen, conf)
	if err != nil {
		return err
	}
	url, err := urlOf(server, host)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Println(url)
	if every > 0 {
		go report(ctx, server, every)
	}
	if err := server.Serve(ctx); !errors.Is(err, relay.ErrClosed) {
		return err
	}
	print(server)
	if conf.XDP != nil {
		reasons, err := conf.XDP.Stats()
		if err != nil {
			return err
		}
		fmt.Fprintln(os.Stderr, "in the kernel:", reasons)
	}
	return nil
}

// attach lets the kernel forward on interfaces, and says how.
func attach(ifaces []string, mode xdp.Mode, log *slog.Logger) (*xdp.Program, error) {
	program, err := xdp.Load(&xdp.Config{Logger: log})
	if err != nil {
		return nil, err
	}
	for _, iface := range ifaces {
		mode, err := program.Attach(iface, mode)
		if err != nil {
			return nil, errors.Join(err, program.Close())
		}
		fmt.Fprintf(os.Stderr, "the kernel forwards on %s, in %v mode\n", iface, mode)
	}
	return program, nil
}

// urlOf is what peers need to know of the relay.
func urlOf(server *relay.Server, host string) (p2p.Relay, error) {
	addr := server.Addr()
	if host == "" {
		host = addr.Addr().String()
		if addr.Addr().IsUnspecified() {
			host = "127.0.0.1"
		}
	}
	pin, err := p2p.ParsePeerID(server.Pin())
	return p2p.Relay{
		Addr:  net.JoinHostPort(host, strconv.Itoa(int(addr.Port()))),
		Token: server.Token(),
		Pin:   pin,
	}, err
}

// loadSecret reads the secret, or draws and keeps one.
func loadSecret(file string) ([]byte, error) {
	secret, err := os.ReadFile(file)
	if !errors.Is(err, os.ErrNotExist) {
		return secret, err
	}
	secret = make([]byte, 32)
	rand.Read(secret)
	return secret, os.WriteFile(file, secret, 0o600)
}

func report(ctx context.Context, server *relay.Server, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			print(server)
		}
	}
}

func print(server *relay.Server) {
	s := server.Stats()
	fmt.Fprintf(os.Stderr, "sessions %d, legs %d; forwarded %d packets, %d bytes; the kernel %d packets, %d bytes; control %d; dropped %d %v\n",
		s.Sessions, s.Legs, s.ForwardedPackets, s.ForwardedBytes, s.OffloadedPackets, s.OffloadedBytes, s.ControlPackets, s.Drops(), s.Dropped)
}
