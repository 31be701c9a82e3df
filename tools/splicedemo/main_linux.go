// Command splicedemo downloads bytes over TLS from a server through examples/sni, once in
// userspace and once with -splice, and prints how long that took and the CPU time of the
// relay. The server sends a little at first, and the bytes that count when the relay says that
// the connection is where it is wanted. Client, relay and server are network namespaces. It
// fails if the kernel has not taken the connection, or if the bytes are not right. It needs
// root, and Linux 6.6.
//
//	go run ./tools/splicedemo [-size BYTES]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/relay/sni"
)

const (
	// head is the number of bytes that are sent before those that count. They make the
	// connection worth a takeover.
	head = 2 * sni.DefaultSpliceBytes
	// patience is the time after which a download has failed.
	patience = time.Minute
)

func main() {
	size := flag.Int64("size", 1<<30, "`bytes` to download")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *size); err != nil {
		fmt.Fprintln(os.Stderr, "splicedemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, size int64) (err error) {
	dir, err := os.MkdirTemp("", "splicedemo")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	relay := filepath.Join(dir, "sni")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", relay, "./examples/sni").CombinedOutput(); err != nil {
		return fmt.Errorf("build examples/sni: %w\n%s", err, out)
	}
	n := &network{}
	defer n.End(&err)
	n.build()
	server, err := n.serve(head + size)
	if err != nil {
		return err
	}
	for _, splice := range []bool{false, true} {
		if err := n.demonstrate(ctx, relay, server, size, splice); err != nil {
			return err
		}
	}
	return nil
}

// demonstrate downloads once, and prints the result.
func (n *network) demonstrate(ctx context.Context, program string, server *server, size int64, splice bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := []string{"-listen", relayAddress, "-route", "*=" + server.address, "-every", "50ms"}
	where, sign := "userspace", " 1 accepted"
	if splice {
		args, where, sign = append(args, "-splice", "c1,s1"), "the kernel", " 1 takeovers"
	}
	r, err := n.start(ctx, sign, program, args...)
	if err != nil {
		return err
	}
	server.ready <- r.said
	err = n.download(ctx, head+size)
	ended := time.Now()
	out, cpu, stopErr := r.stop()
	if r.sign == "" {
		err = errors.Join(err, fmt.Errorf("the relay has never said %q", sign))
	}
	if err := errors.Join(err, stopErr); err != nil {
		return fmt.Errorf("in %s: %w\n%s", where, err, out)
	}
	took := ended.Sub(<-server.began).Round(time.Millisecond)
	fmt.Printf("in %s: %d bytes in %v, %.0f MB/s; CPU time of the relay: %v\n", where, size, took, float64(size)/1e6/took.Seconds(), cpu)
	fmt.Println("the relay says:", strings.TrimSpace(r.sign))
	return nil
}

// network is three hosts.
type network struct {
	nettest.Program
	client, relay, server *nettest.Host
}
