// Quota runs an HTTP/3 server that limits each source to a quota, and prints which
// sources are kept out.
//
//	go run ./examples/quota -listen :4433 -connections 5
//	go run ./examples/quota -listen :4433 -root DIR -list FILE -requests 10
//	go run ./examples/quota -listen :4433 -drop -xdp eth0
//
// It echoes a POST, and answers a GET with a file in -root. Its lists are changed over HTTP
// on a loopback address:
//
//	curl -X POST   'http://127.0.0.1:8080/deny?prefix=192.0.2.0/24&ttl=1h&reason=abuse&end=1'
//	curl -X POST   'http://127.0.0.1:8080/allow?prefix=2001:db8::/48'
//	curl -X DELETE 'http://127.0.0.1:8080/deny?prefix=192.0.2.0/24'
//	curl -X POST   'http://127.0.0.1:8080/reload'
//	curl           'http://127.0.0.1:8080/'
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/quota"
	"github.com/quicway/quicway/xdp"
)

// options are the values of the flags.
type options struct {
	listen, admin, root, list string
	cert, key                 string
	every                     time.Duration
	quota                     quota.Config
	drop, verbose             bool
	xdp                       string
	mode                      xdp.Mode
	debug                     program.Debug
}

var quotaProgram = program.Program{
	Name: "quota",
	Does: "runs an HTTP/3 server that limits each source to a quota, and prints which sources are kept out",
	Uses: []program.Use{
		{Args: "-listen :4433 -connections 5", Does: "let each source have five connections"},
		{Args: "-listen :4433 -root DIR -list FILE -requests 10", Does: "serve files, with a list of prefixes to deny and allow"},
		{Args: "-listen :4433 -drop -xdp eth0", Does: "have the kernel drop what is beyond a quota (Linux, root)"},
	},
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", ":4433", "UDP `address` to serve on")
	flag.StringVar(&o.admin, "admin", "127.0.0.1:8080", "TCP `address` on loopback at which lists are changed (empty: none)")
	flag.StringVar(&o.root, "root", "", "`directory` to serve files from (default: none)")
	flag.StringVar(&o.list, "list", "", "`file` of prefixes to deny and allow")
	flag.StringVar(&o.cert, "cert", "", "`file` with the certificate (default: a self-signed one)")
	flag.StringVar(&o.key, "key", "", "`file` with its key")
	flag.DurationVar(&o.every, "every", time.Second, "print the table at this interval (0: only at the end)")
	s := &o.quota.Source
	flag.IntVar(&s.Connections, "connections", 0, "connections of a source at the same time (0: 1024; negative: no limit)")
	flag.IntVar(&s.HalfOpen, "half-open", 0, "half-open attempts of a source whose address is not validated (0: 128)")
	flag.Float64Var(&s.ConnectionRate, "rate", 0, "new connections of a source per second (0: 100)")
	flag.Float64Var(&s.AttemptRate, "attempts", 0, "attempts of a source per second (0: 1000)")
	flag.Float64Var(&s.PacketRate, "packets", 0, "packets of a source per second (0: no limit)")
	flag.Float64Var(&s.RequestRate, "requests", 0, "requests of a source per second (0: no limit)")
	flag.Float64Var(&o.quota.ConnectionRequestRate, "connection-requests", 0, "requests of a connection per second (0: no limit)")
	flag.IntVar(&o.quota.Total.Connections, "total", 0, "connections of all sources together (0: 65536)")
	flag.BoolVar(&o.quota.AlwaysRetry, "retry", false, "answer each attempt with a Retry, to validate its address")
	flag.BoolVar(&o.drop, "drop", false, "drop attempts beyond a quota instead of refusing them")
	flag.BoolVar(&o.quota.DryRun, "dry-run", false, "let everything in, and count what would be kept out")
	flag.StringVar(&o.xdp, "xdp", "", "make the kernel drop packets on these `interfaces`, separated by commas (Linux, root)")
	flag.TextVar(&o.mode, "xdp-mode", xdp.Auto, "`mode` of XDP: auto, native or generic")
	flag.BoolVar(&o.verbose, "v", false, "log sources that are kept out")
	o.debug.Flags()
	quotaProgram.Main(func(ctx context.Context, args []string) error {
		if err := program.Args(args, 0); err != nil {
			return err
		}
		return run(ctx, &o)
	})
}

// run serves until ctx is done.
func run(ctx context.Context, o *options) (err error) {
	defer func() { err = errors.Join(err, o.debug.Close()) }()
	if err := o.debug.Open(); err != nil {
		return err
	}
	s, err := newServer(o)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "serving https on", s.conn.LocalAddr())
	return s.run(ctx, os.Stdout)
}
