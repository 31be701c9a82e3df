// Relay runs a relay, and prints its URL, which has the access token and the pin that
// peers need.
//
//	go run ./examples/relay -listen :4433 -host relay.example.org
//
// It accepts tunnels at the TCP port of the same number, for peers whose UDP is blocked, and
// with -tunnel at another one, which the URL then names:
//
//	go run ./examples/relay -listen :4433 -tunnel 443 -host relay.example.org
//
// With -xdp the kernel forwards packets on the given interfaces (Linux, as root):
//
//	go run ./examples/relay -listen :4433 -xdp eth0
//
// With -xdp-pin the kernel goes on to forward while the relay is restarted:
//
//	go run ./examples/relay -listen :4433 -secret relay.key -xdp eth0 -xdp-pin /sys/fs/bpf/quicway
//
// Several relays that have the same secret know each other by the same -members. At SIGTERM
// such a relay drains: it tells the peers where to go, and ends when they have gone.
//
//	go run ./examples/relay -listen :4433 -secret relay.key -name a -members a=a.example:4433,b=b.example:4433
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/internal/keyfile"
	"github.com/quicway/quicway/p2p"
	"github.com/quicway/quicway/relay"
	"github.com/quicway/quicway/xdp"
)

var relayProgram = program.Program{
	Name: "relay",
	Does: "runs a relay, and prints its URL, which peers need",
	Uses: []program.Use{
		{Args: "-listen :4433 -host relay.example.org -secret relay.key", Does: "be the same relay after a restart"},
		{Args: "-listen :4433 -secret relay.key -xdp eth0 -xdp-pin /sys/fs/bpf/quicway", Does: "have the kernel forward, also during a restart (Linux, root)"},
		{Args: "-listen :4433 -secret relay.key -name a -members a=a.example:4433,b=b.example:4433", Does: "be one of several relays"},
	},
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", ":4433", "UDP `address` to listen on")
	flag.StringVar(&o.host, "host", "", "name or IP address at which peers reach this host (default: that of -listen, or 127.0.0.1)")
	flag.UintVar(&o.tunnel, "tunnel", 0, "also accept tunnels at this TCP `port`, such as 443 (0: only at that of -listen)")
	flag.StringVar(&o.secret, "secret", "", "`file` with the relay's secret, created if missing; with it, connections survive a restart (default: a new secret each time)")
	flag.StringVar(&o.nextSecret, "next-secret", "", "`file` with the secret that the relays are about to have")
	flag.StringVar(&o.oldSecrets, "old-secret", "", "comma-separated `files` with secrets that are accepted as well, to change the secret of several relays")
	flag.StringVar(&o.name, "name", "", "`name` that tells this relay from others with the same secret")
	flag.StringVar(&o.advertise, "advertise", "", "`host:port` that clients are told for this relay, if they find it at an address of several")
	flag.StringVar(&o.zone, "zone", "", "`place` of this relay, such as a data centre; the URL names it, and peers choose a standby relay in another one")
	flag.StringVar(&o.members, "members", "", "comma-separated `relays` to which clients go when this one drains or is full, each as NAME=HOST:PORT/ZONE")
	flag.DurationVar(&o.drain, "drain", -1, "how long to wait at SIGTERM until the peers have gone (default: 30s with -members, unless -xdp-pin is set; else 0)")
	flag.StringVar(&o.ifaces, "xdp", "", "comma-separated `interfaces` on which the kernel forwards (default: none)")
	flag.TextVar(&o.mode, "xdp-mode", xdp.Auto, "`mode` of -xdp: auto, native or generic")
	flag.StringVar(&o.pin, "xdp-pin", "", "`directory` on a BPF file system; with it, -xdp goes on when this process ends, until -xdp-unpin")
	unpin := flag.Bool("xdp-unpin", false, "remove the program that -xdp-pin has left, and exit")
	flag.DurationVar(&o.stats, "stats", 0, "print counters at this interval (0: only when the relay stops)")
	flag.BoolVar(&o.verbose, "v", false, "log sessions")
	relayProgram.Main(func(ctx context.Context, args []string) error {
		switch err := program.Args(args, 0); {
		case err != nil:
			return err
		case *unpin && o.pin == "":
			return program.Usagef("-xdp-unpin needs -xdp-pin")
		case *unpin:
			return xdp.Unpin(o.pin)
		case o.pin != "" && o.ifaces == "":
			return program.Usagef("-xdp-pin needs -xdp")
		case o.tunnel > 65535:
			return program.Usagef("-tunnel %d is no port", o.tunnel)
		}
		return o.run(ctx)
	})
}

// maxSecret bounds the file of a secret, in bytes.
const maxSecret = 4096

// options has the flags.
type options struct {
	listen, host          string
	tunnel                uint
	secret, oldSecrets    string
	nextSecret            string
	name, advertise, zone string
	members               string
	drain, stats          time.Duration
	verbose               bool
	offload
}

// offload has the flags about forwarding in the kernel.
type offload struct {
	ifaces string
	mode   xdp.Mode
	pin    string
}

func (o *options) run(ctx context.Context) error {
	conf, err := o.config()
	if err != nil {
		return err
	}
	if o.ifaces != "" {
		program, err := xdp.Load(&xdp.Config{Logger: conf.Logger, Pin: o.pin})
		if err != nil {
			return err
		}
		defer program.Close()
		conf.XDP = program
	}
	server, failed, err := o.open(ctx, conf)
	if err != nil {
		return err
	}
	if err := o.attach(conf.XDP); err != nil {
		return errors.Join(err, server.Close())
	}
	url := server.URL(o.reachedAt(server))
	if _, err := p2p.ParseRelay(url); err != nil {
		return errors.Join(program.Usagef("-host %q is no name or IP address, with a port or without", o.host), server.Close())
	}
	fmt.Println(url)
	if o.stats > 0 {
		go report(ctx, server, o.stats)
	}
	if err := serve(ctx, server, failed, o.drainTime()); err != nil {
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

// config makes the configuration of the relay.
func (o *options) config() (*relay.Config, error) {
	conf := &relay.Config{
		Name: o.name, Advertise: o.advertise, Zone: o.zone, TunnelPort: uint16(o.tunnel), Members: parseMembers(o.members),
	}
	if o.verbose {
		conf.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.secret != "" {
		secret, err := loadSecret(o.secret)
		if err != nil {
			return nil, err
		}
		conf.Secret = secret
	}
	if o.nextSecret != "" {
		secret, err := readSecret(o.nextSecret)
		if err != nil {
			return nil, err
		}
		conf.NextSecret = secret
	}
	for _, file := range fields(o.oldSecrets) {
		secret, err := readSecret(file)
		if err != nil {
			return nil, err
		}
		conf.OldSecrets = append(conf.OldSecrets, secret)
	}
	return conf, nil
}

// parseMembers reads a list of relays, each as NAME=HOST:PORT/ZONE. Name and zone may be
// missing.
func parseMembers(text string) (list []relay.Member) {
	for _, field := range fields(text) {
		var m relay.Member
		name, rest, ok := strings.Cut(field, "=")
		if !ok {
			name, rest = "", field
		}
		m.Name = name
		m.Addr, m.Zone, _ = strings.Cut(rest, "/")
		list = append(list, m)
	}
	return list
}

// fields splits a comma-separated list.
func fields(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// serve runs the server until ctx is done, and then drains it. It closes it if a part has failed.
func serve(ctx context.Context, server *relay.Server, failed <-chan error, drain time.Duration) error {
	served := make(chan error, 1)
	go func() { served <- server.Run(context.Background()) }()
	select {
	case err := <-served:
		return err
	case err := <-failed:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
	}
	err := end(server, drain)
	if served := <-served; !errors.Is(served, relay.ErrClosed) {
		err = errors.Join(err, served)
	}
	return err
}

// end drains the server, and closes it.
func end(server *relay.Server, drain time.Duration) error {
	if drain == 0 {
		return server.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		fmt.Fprintln(os.Stderr, err)
		return nil
	}
	return err
}

// drainTime returns how long to wait for the peers. Without other relays they have nowhere to
// go, and with a pinned program the kernel goes on to forward for them.
func (o *options) drainTime() time.Duration {
	switch {
	case o.drain >= 0:
		return o.drain
	case o.members != "" && o.pin == "":
		return 30 * time.Second
	}
	return 0
}

// attach attaches the XDP program to the interfaces, and prints the mode of each.
func (o *offload) attach(program *xdp.Program) error {
	for _, iface := range fields(o.ifaces) {
		mode, err := program.Attach(iface, o.mode)
		if err != nil {
			return err
		}
		fmt.Fprintf(os.Stderr, "the kernel forwards on %s, in %v mode\n", iface, mode)
	}
	return nil
}

// reachedAt returns the host of the URL.
func (o *options) reachedAt(server *relay.Server) string {
	if o.host == "" && server.Addr().Addr().IsUnspecified() {
		return "127.0.0.1"
	}
	return o.host
}

// loadSecret reads the secret from a file, or makes a new one and writes it there. If several
// relays do so at once, they have the same secret.
func loadSecret(file string) ([]byte, error) {
	secret, err := readSecret(file)
	if !errors.Is(err, fs.ErrNotExist) {
		return secret, err
	}
	secret = make([]byte, 32)
	rand.Read(secret)
	if err := keyfile.Create(file, secret); errors.Is(err, fs.ErrExist) {
		return readSecret(file)
	} else if err != nil {
		return nil, err
	}
	return secret, nil
}

// readSecret reads a secret from a file that others must not read.
func readSecret(file string) ([]byte, error) { return keyfile.Read(file, maxSecret, keyfile.Secret) }

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
	fmt.Fprintf(os.Stderr, "sessions %d, legs %d, tunnels %d; forwarded %d packets, %d bytes; the kernel %d packets, %d bytes; control %d; dropped %d %v\n",
		s.Sessions, s.Legs, s.Tunnels, s.ForwardedPackets, s.ForwardedBytes, s.OffloadedPackets, s.OffloadedBytes, s.ControlPackets, s.Drops(), s.Dropped)
}
