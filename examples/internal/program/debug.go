package program

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlogwriter"
)

// patience is how long Close waits for files of connections that have not ended.
const patience = 2 * time.Second

// Debug writes what Wireshark and viewers of qlog need: the secrets of TLS to the file that
// the environment variable SSLKEYLOGFILE names, and the events of QUIC connections to the
// folder of the flag -qlog. By default it writes nothing.
type Debug struct {
	qlog string
	keys *os.File

	writing sync.WaitGroup
	mu      sync.Mutex // guards err
	err     error      // the first one
}

// Flags defines the flags. Call it before [Program.Main].
func (d *Debug) Flags() {
	flag.StringVar(&d.qlog, "qlog", "", "write a qlog file of each QUIC connection into this `folder`, made if missing (default: none)")
}

// Open opens the file of secrets and makes the folder.
func (d *Debug) Open() (err error) {
	if name := os.Getenv("SSLKEYLOGFILE"); name != "" {
		if d.keys, err = os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
			return fmt.Errorf("SSLKEYLOGFILE: %w", err)
		}
		fmt.Fprintln(os.Stderr, "whoever reads", name, "can decrypt the connections: see SSLKEYLOGFILE")
	}
	if d.qlog != "" {
		if err := os.MkdirAll(d.qlog, 0o755); err != nil {
			return fmt.Errorf("-qlog: %w", err)
		}
	}
	return nil
}

// Keys returns the writer of secrets for a [crypto/tls.Config], or nil.
func (d *Debug) Keys() io.Writer {
	if d.keys == nil {
		return nil
	}
	return d.keys
}

// QUIC makes the connections of a configuration write their events.
func (d *Debug) QUIC(conf *quic.Config) *quic.Config {
	if d.qlog != "" {
		conf.Tracer = d.trace
	}
	return conf
}

// trace begins the file of a connection.
func (d *Debug) trace(_ context.Context, isClient bool, id quic.ConnectionID) qlogwriter.Trace {
	side := "server"
	if isClient {
		side = "client"
	}
	f, err := os.Create(filepath.Join(d.qlog, fmt.Sprintf("%v_%s.sqlog", id, side)))
	if err != nil {
		d.fail(fmt.Errorf("-qlog: %w", err))
		return nil
	}
	out := &buffered{Writer: bufio.NewWriter(f), file: f, debug: d}
	trace := qlogwriter.NewConnectionFileSeq(out, isClient, id)
	d.writing.Go(trace.Run)
	return trace
}

func (d *Debug) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = cmp.Or(d.err, err)
}

// Close waits until the files are written, and closes them. All connections must have ended:
// it does not wait long for others. It returns the first error of a qlog file.
func (d *Debug) Close() error {
	written := make(chan struct{})
	go func() {
		defer close(written)
		d.writing.Wait()
	}()
	select {
	case <-written:
	case <-time.After(patience):
		d.fail(errors.New("-qlog: a file is not complete"))
	}
	if d.keys != nil {
		d.fail(d.keys.Close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// buffered is a file with a buffer.
type buffered struct {
	*bufio.Writer
	file  *os.File
	debug *Debug
}

// Close implements [io.Closer].
func (b *buffered) Close() error {
	err := errors.Join(b.Flush(), b.file.Close())
	if err != nil {
		b.debug.fail(fmt.Errorf("-qlog: %w", err))
	}
	return err
}
