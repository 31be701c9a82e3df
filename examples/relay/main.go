// Relay runs a relay, and prints its URL, which has the access token and the pin that
// peers need.
//
//	go run ./examples/relay -listen :4433 -host relay.example.org
//
// With -xdp the kernel forwards packets on the given interfaces (Linux, as root):
//
//	go run ./examples/relay -listen :4433 -xdp eth0
//
// With -xdp-pin the kernel goes on to forward while the relay is restarted:
//
//	go run ./examples/relay -listen :4433 -secret relay.key -xdp eth0 -xdp-pin /sys/fs/bpf/quicway
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
	listen := flag.String("listen", ":4433", "UDP `address` to listen on")
	host := flag.String("host", "", "name or IP address at which peers reach this host (default: that of -listen, or 127.0.0.1)")
	secret := flag.String("secret", "", "`file` with the relay's secret, created if missing; with it, connections survive a restart (default: a new secret each time)")
	ifaces := flag.String("xdp", "", "comma-separated `interfaces` on which the kernel forwards (default: none)")
	var mode xdp.Mode
	flag.TextVar(&mode, "xdp-mode", xdp.Auto, "`mode` of -xdp: auto, native or generic")
	pin := flag.String("xdp-pin", "", "`directory` on a BPF file system; with it, -xdp goes on when this process ends, until -xdp-unpin")
	unpin := flag.Bool("xdp-unpin", false, "remove the program that -xdp-pin has left, and exit")
	stats := flag.Duration("stats", 0, "print counters at this interval (0: only when the relay stops)")
	verbose := flag.Bool("v", false, "log sessions")
	flag.Parse()
	offload := offload{ifaces: *ifaces, mode: mode, pin: *pin}
	var err error
	if *unpin {
		err = xdp.Unpin(*pin)
	} else {
		err = run(*listen, *host, *secret, offload, *stats, *verbose)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

// offload has the flags about forwarding in the kernel.
type offload struct {
	ifaces string
	mode   xdp.Mode
	pin    string
}

func run(listen, host, secretFile string, o offload, every time.Duration, verbose bool) error {
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
	if o.ifaces != "" {
		program, err := xdp.Load(&xdp.Config{Logger: conf.Logger, Pin: o.pin})
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
	if err := o.attach(conf.XDP); err != nil {
		return errors.Join(err, server.Close())
	}
	url, err := urlOf(server, host)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	fmt.Println(url)
	if every > 0 {
		go report(ctx, server, every)
	}
	if err := server.Run(ctx); err != nil {
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

// attach attaches the XDP program to the interfaces, and prints the mode of each.
func (o *offload) attach(program *xdp.Program) error {
	for _, iface := range strings.FieldsFunc(o.ifaces, func(r rune) bool { return r == ',' }) {
		mode, err := program.Attach(iface, o.mode)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "the kernel forwards on %s, in %v mode\n", iface, mode)
	}
	return nil
}

// urlOf returns the URL of the relay.
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

// loadSecret reads the secret from a file, or makes a new one and writes it there.
func loadSecret(file string) ([]byte, error) {
	secret, err := os.ReadFile(file)
	if !errors.Is(err, os.ErrNotExist) {
		return secret, err
	}
	secret = make([]byte, 32)
	rand.Read(secret)
	return secret, os.WriteFile(file, secret, 0o600)
}

// report prints the counters at an interval until ctx is done.
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

// print prints the counters.
func print(server *relay.Server) {
	s := server.Stats()
	fmt.Fprintf(os.Stderr, "sessions %d, legs %d; forwarded %d packets, %d bytes; the kernel %d packets, %d bytes; control %d; dropped %d %v\n",
		s.Sessions, s.Legs, s.ForwardedPackets, s.ForwardedBytes, s.OffloadedPackets, s.OffloadedBytes, s.ControlPackets, s.Drops(), s.Dropped)
}
