// Quota runs an HTTP/3 server that keeps to a quota what each source may have, and
// shows who is kept out.
//
//	go run ./examples/quota -listen :4433 -connections 5
//	go run ./examples/quota -listen :4433 -root DIR -list FILE -requests 10
//	go run ./examples/quota -listen :4433 -drop -xdp eth0
//
// A POST is echoed; a GET is served from -root. Lists are changed while it runs,
// over HTTP on a loopback address:
//
//	curl -X POST   'http://127.0.0.1:8080/deny?prefix=192.0.2.0/24&ttl=1h&reason=abuse&end=1'
//	curl -X POST   'http://127.0.0.1:8080/allow?prefix=2001:db8::/48'
//	curl -X DELETE 'http://127.0.0.1:8080/deny?prefix=192.0.2.0/24'
//	curl -X POST   'http://127.0.0.1:8080/reload'
//	curl           'http://127.0.0.1:8080/'
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/xdp"
)

// options are what the flags say.
type options struct {
	listen, admin, root, list string
	cert, key                 string
	every                     time.Duration
	quota                     quota.Config
	drop, verbose             bool
	xdp                       string
	mode                      xdp.Mode
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", ":4433", "UDP `address` to serve on")
	flag.StringVar(&o.admin, "admin", "127.0.0.1:8080", "TCP `address` to change lists at, on loopback (empty: none)")
	flag.StringVar(&o.root, "root", "", "`directory` to serve files from (default: none)")
	flag.StringVar(&o.list, "list", "", "`file` of prefixes to deny and allow")
	flag.StringVar(&o.cert, "cert", "", "`file` with the certificate (default: a self-signed one)")
	flag.StringVar(&o.key, "key", "", "`file` with its key")
	flag.DurationVar(&o.every, "every", time.Second, "show the table at this interval (0: only at the end)")
	s := &o.quota.Source
	flag.IntVar(&s.Connections, "connections", 0, "connections that a source may have (0: 1024; negative: any number)")
	flag.IntVar(&s.HalfOpen, "half-open", 0, "unfinished handshakes of a source whose address is not shown (0: 128)")
	flag.Float64Var(&s.ConnectionRate, "rate", 0, "new connections of a source per second (0: 100)")
	flag.Float64Var(&s.AttemptRate, "attempts", 0, "attempts of a source per second (0: 1000)")
	flag.Float64Var(&s.PacketRate, "packets", 0, "packets of a source per second (0: any number)")
	flag.Float64Var(&s.RequestRate, "requests", 0, "requests of a source per second (0: any number)")
	flag.Float64Var(&o.quota.ConnectionRequestRate, "connection-requests", 0, "requests of a connection per second (0: any number)")
	flag.IntVar(&o.quota.Total.Connections, "total", 0, "connections of all (0: 65536)")
	flag.BoolVar(&o.quota.AlwaysRetry, "retry", false, "have everybody show its address first")
	flag.BoolVar(&o.drop, "drop", false, "do not answer what is beyond a quota")
	flag.BoolVar(&o.quota.DryRun, "dry-run", false, "only count what would be kept out")
	flag.StringVar(&o.xdp, "xdp", "", "have the kernel drop what comes by these `interfaces`, separated by commas (Linux, root)")
	flag.TextVar(&o.mode, "xdp-mode", xdp.Auto, "how: `auto`, native or generic")
	flag.BoolVar(&o.verbose, "v", false, "log who is kept out")
	flag.Parse()
	if err := run(&o); err != nil {
		fmt.Fprintln(os.Stderr, "quota:", err)
		os.Exit(1)
	}
}

func run(o *options) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if o.drop {
		o.quota.Excess = quota.Drop
	}
	if o.verbose {
		o.quota.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	kernel, err := newOffload(o)
	if err != nil {
		return err
	}
	defer kernel.close()
	o.quota.XDP = kernel.program
	controller, err := quota.New(&o.quota)
	if err != nil {
		return err
	}
	defer controller.Close()
	if err := kernel.attach(o); err != nil {
		return err
	}
	if o.list != "" {
		if err := controller.LoadFile(o.list); err != nil {
			return err
		}
	}
	cert, err := certificate(o.cert, o.key)
	if err != nil {
		return err
	}
	admin, err := listenAdmin(o.admin)
	if err != nil {
		return err
	}
	// What stops first stops all.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var running sync.WaitGroup
	var adminErr error
	running.Go(func() { defer cancel(); adminErr = serveAdmin(ctx, admin, controller, o.list) })
	running.Go(func() { show(ctx, os.Stdout, controller, kernel.modes, o.every) })
	err = serve(ctx, o, controller, cert)
	cancel()
	running.Wait()
	printTable(os.Stdout, controller, kernel.modes)
	return errors.Join(err, adminErr)
}

// serve answers requests until ctx is done.
func serve(ctx context.Context, o *options, controller *quota.Controller, cert tls.Certificate) error {
	addr, err := net.ResolveUDPAddr("udp", o.listen)
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	transport := &quic.Transport{Conn: conn}
	if err := controller.Protect(transport); err != nil {
		return err
	}
	defer transport.Close()
	listener, err := transport.ListenEarly(http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{cert}}), &quic.Config{Allow0RTT: true})
	if err != nil {
		return err
	}
	server := &http3.Server{Handler: controller.Handler(handler(o.root))}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	fmt.Fprintln(os.Stderr, "serving https on", conn.LocalAddr())
	if err := server.ServeListener(controller.Listener(listener)); ctx.Err() == nil {
		return err
	}
	return nil
}

// handler echoes what is posted, and serves files.
func handler(root string) http.Handler {
	files := http.NotFoundHandler()
	if root != "" {
		files = http.FileServer(http.Dir(root))
	}
	mux := http.NewServeMux()
	mux.Handle("GET /", files)
	mux.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // an error means that the client is gone
	})
	return mux
}

// certificate reads one, or makes one.
func certificate(cert, key string) (tls.Certificate, error) {
	if cert != "" || key != "" {
		return tls.LoadX509KeyPair(cert, key)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	return pki.SelfSigned(private)
}
