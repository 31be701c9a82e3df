// Http3 is a web server: HTTP/3, HTTP/2 and HTTP/1.1 on one port, under one quota.
//
//	go run ./examples/http3 -root DIR
//	go run ./examples/http3 -listen :443 -root DIR -cert FULLCHAIN -key KEY
//
// It answers a GET with a file, and a POST to /login with a refusal, of which each client may
// get five at once and then one in ten seconds. Browsers that have come over TCP find HTTP/3 by
// the field Alt-Svc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/quota"
)

// options are the values of the flags.
type options struct {
	listen    string
	cert, key string
	quota     quota.Config
	debug     program.Debug
}

var web = program.Program{
	Name: "http3",
	Does: "serves files by HTTP/3, HTTP/2 and HTTP/1.1 on one port, under one quota",
	Uses: []program.Use{
		{Args: "-root DIR", Does: "serve with a self-signed certificate, and say how a browser takes it"},
		{Args: "-listen :443 -root DIR -cert FULLCHAIN -key KEY", Does: "serve the public"},
	},
}

func main() {
	var o options
	flag.StringVar(&o.listen, "listen", ":4433", "`address` to serve on, with TCP and UDP")
	root := flag.String("root", ".", "`directory` to serve files from")
	flag.StringVar(&o.cert, "cert", "", "`file` with the certificate (default: a self-signed one)")
	flag.StringVar(&o.key, "key", "", "`file` with its key")
	flag.IntVar(&o.quota.Source.Connections, "connections", 64, "connections of a source at the same time")
	flag.Float64Var(&o.quota.Source.RequestRate, "requests", 200, "requests of a source per second")
	o.debug.Flags()
	web.Main(func(ctx context.Context, args []string) error {
		return run(ctx, &o, *root, args)
	})
}

// run serves until ctx is done.
func run(ctx context.Context, o *options, root string, args []string) (err error) {
	if err := program.Args(args, 0); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, o.debug.Close()) }()
	if err := o.debug.Open(); err != nil {
		return err
	}
	if _, err := os.ReadDir(root); err != nil {
		return fmt.Errorf("-root: %w", err)
	}
	s, err := newServer(o, http.FileServer(http.Dir(root)))
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "serving https://localhost:%d\n", s.port)
	if o.cert == "" {
		fmt.Fprintf(os.Stderr, "try: chromium --user-data-dir=/tmp/http3 --origin-to-force-quic-on=localhost:%d --ignore-certificate-errors-spki-list=%s https://localhost:%d\n",
			s.port, keyHash(s.cert), s.port)
	}
	return s.run(ctx)
}
