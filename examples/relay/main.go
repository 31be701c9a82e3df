// Relay runs a relay and prints the URL that peers need, with its token.
//
//	go run ./examples/relay -listen :4433 -host relay.example.org
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
	"syscall"
	"time"

	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
)

func main() {
	listen := flag.String("listen", ":4433", "UDP `address` to serve on")
	host := flag.String("host", "", "name or IP address at which peers reach this host (default: that of -listen, or 127.0.0.1)")
	secret := flag.String("secret", "", "`file` with the relay's secret, made if missing, so that peers survive a restart (default: a new secret each time)")
	stats := flag.Duration("stats", 0, "print counters at this interval (0: only at the end)")
	verbose := flag.Bool("v", false, "log sessions")
	flag.Parse()
	if err := run(*listen, *host, *secret, *stats, *verbose); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(listen, host, secretFile string, every time.Duration, verbose bool) error {
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
	return nil
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
	fmt.Fprintf(os.Stderr, "sessions %d, legs %d; forwarded %d packets, %d bytes; control %d; dropped %d %v\n",
		s.Sessions, s.Legs, s.ForwardedPackets, s.ForwardedBytes, s.ControlPackets, s.Drops(), s.Dropped)
}
