// Metrics serves the metrics of a relay with a quota, of two peers, and of a relay by name to
// Prometheus, all on one page, and makes some traffic for them to count.
//
//	go run ./examples/metrics
//	curl http://127.0.0.1:9464/metrics
//
// With a capture there are those of a monitor as well, and with -xdp those of the relay's XDP
// program (Linux, root):
//
//	go run ./examples/metrics -capture FILE
//	sudo go run ./examples/metrics -xdp eth0
//
// With -once it writes the page to the standard output after a round of traffic, and ends. The
// dashboard and the alerts in docs work with these metrics.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/quicway/quicway/examples/internal/program"
)

// options are the values of the flags.
type options struct {
	listen, capture, xdp string
	every                time.Duration
	once                 bool
}

var exporter = program.Program{
	Name: "metrics",
	Does: "serves the metrics of all packages to Prometheus, and makes some traffic for them to count",
	Uses: []program.Use{
		{Args: "-listen 127.0.0.1:9464", Does: "serve them at http://127.0.0.1:9464/metrics"},
		{Args: "-capture FILE -once", Does: "print them once, those of a monitor of a capture included"},
		{Args: "-xdp eth0", Does: "serve them with those of the relay's XDP program (Linux, root)"},
	},
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", "127.0.0.1:9464", "TCP `address` to serve /metrics on")
	flag.StringVar(&o.capture, "capture", "", "`file` for a monitor, pcap or pcapng (default: no monitor)")
	flag.StringVar(&o.xdp, "xdp", "", "`interface` for the relay's XDP program (default: no program)")
	flag.DurationVar(&o.every, "every", time.Second, "`time` between rounds of traffic")
	flag.BoolVar(&o.once, "once", false, "write the page to the standard output after a round of traffic, and end")
	exporter.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 0); err != nil {
			return err
		}
		if o.every <= 0 {
			return program.Usagef("-every %v is no time between rounds", o.every)
		}
		return serve(ctx, &o, os.Stdout)
	})
}

// serve starts everything and serves the metrics until ctx is done.
func serve(ctx context.Context, o *options, out io.Writer) (err error) {
	registry := prometheus.NewRegistry()
	s := &scene{registry: registry, failed: make(chan error, 1)}
	ctx, stop := context.WithCancel(ctx)
	defer func() { stop(); err = errors.Join(err, s.close()) }()
	if err := s.start(ctx, o); err != nil {
		return err
	}
	page := promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	if o.once {
		if err := s.round(ctx); err != nil {
			return err
		}
		return write(out, page)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", page)
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(out, "http://%v/metrics\n", listener.Addr())
	var traffic sync.WaitGroup
	defer traffic.Wait()
	defer stop()
	traffic.Go(func() { s.traffic(ctx, o.every) })
	select {
	case err := <-served:
		return err
	case err := <-s.failed:
		return errors.Join(err, server.Close())
	case <-ctx.Done():
		return server.Close()
	}
}

// write writes the page that a scrape gets.
func write(out io.Writer, page http.Handler) error {
	recorder := httptest.NewRecorder()
	page.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if recorder.Code != http.StatusOK {
		return errors.New(recorder.Body.String())
	}
	_, err := recorder.Body.WriteTo(out)
	return err
}
