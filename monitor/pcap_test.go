package monitor

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/quicway/quicway/internal/decap"
	"github.com/quicway/quicway/internal/test/nettest"
)

// pcapOf returns a capture of datagrams.
func pcapOf(tb testing.TB, link decap.LinkType, all ...sent) []byte {
	tb.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriterNanos(&b)
	if err := w.WriteFileHeader(65536, layers.LinkType(link)); err != nil {
		tb.Fatal(err)
	}
	for _, s := range all {
		p := frame(s)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length}, p.Data); err != nil {
			tb.Fatal(err)
		}
	}
	return b.Bytes()
}

func pcapngOf(tb testing.TB, all ...sent) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeRaw)
	if err != nil {
		tb.Fatal(err)
	}
	for _, s := range all {
		p := frame(s)
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: p.Time, CaptureLength: len(p.Data), Length: p.Length}, p.Data); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func zipped(tb testing.TB, b []byte) []byte {
	tb.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return out.Bytes()
}

// TestFiles checks that both formats, as files and as streams, give the same
// connection.
func TestFiles(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 10000) })
	for name, capture := range map[string][]byte{
		"pcap": pcapOf(t, decap.LinkRaw, all...), "pcapng": pcapngOf(t, all...),
		"pcap.gz": zipped(t, pcapOf(t, decap.LinkRaw, all...)), "pcapng.gz": zipped(t, pcapngOf(t, all...)),
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "capture")
			if err := os.WriteFile(file, capture, 0o600); err != nil {
				t.Fatal(err)
			}
			fromFile, err := OpenFile(file)
			if err != nil {
				t.Fatal(err)
			}
			stream, err := NewReader(bytes.NewReader(capture))
			if err != nil {
				t.Fatal(err)
			}
			for _, source := range []Source{fromFile, stream} {
				m, err := New(source, nil)
				if err != nil {
					t.Fatal(err)
				}
				if err := m.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
				if c := only(t, m.Tracker()); c.Confidence != Proven || c.FromClient.Packets+c.FromServer.Packets != uint64(len(all)) {
					t.Errorf("got %v, %v %v, want %d packets", c.Confidence, c.FromClient, c.FromServer, len(all))
				}
			}
		})
	}
}

// TestCutFile checks that a capture that ends within a packet has the packets
// before it.
func TestCutFile(t *testing.T) {
	all := []sent{at(0, clientAddr, serverAddr, []byte("one")), at(1, clientAddr, serverAddr, []byte("two"))}
	capture := pcapOf(t, decap.LinkRaw, all...)
	source, err := NewReader(bytes.NewReader(capture[:len(capture)-3]))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := m.Stats(); s.Packets != 1 || s.SourceDropped != 1 {
		t.Errorf("got %d packets and %d lost, want 1 and 1", s.Packets, s.SourceDropped)
	}
}

// TestStandardInput checks that Run ends with its context while it reads a pipe
// without data.
func TestStandardInput(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := os.Stat("/dev/fd"); err != nil {
		nettest.Missing(t, "no pipe can be opened anew: "+err.Error())
	}
	before := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = before; r.Close() }()
	if _, err := w.Write(pcapOf(t, decap.LinkRaw, at(0, clientAddr, serverAddr, []byte("one")))); err != nil {
		t.Fatal(err)
	}
	source, err := OpenFile("-")
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	for m.Stats().Packets == 0 {
		runtime.Gosched()
	}
	cancel()
	if err := ended(t, done); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestBadFiles(t *testing.T) {
	for _, content := range []string{"", "no", "this is no capture at all", "\x0a\x0d\x0d\x0a", "\x1f\x8b\x08\x00", string(zipped(t, []byte("no"))), string(zipped(t, []byte("none at all")))} {
		if _, err := NewReader(bytes.NewReader([]byte(content))); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: got %v, want %v", content, err, ErrFormat)
		}
	}
	if _, err := OpenFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want %v", err, os.ErrNotExist)
	}
}

// TestMonitor checks that events come in order, that a file waits for their
// readers, and that Run can be called only once.
func TestMonitor(t *testing.T) {
	all := play(t, nil, false, func(s *scene) { s.exchange(s.dial(nil), 10000) })
	source, err := NewReader(bytes.NewReader(pcapOf(t, decap.LinkRaw, all...)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, &Config{EventQueue: 1})
	if err != nil {
		t.Fatal(err)
	}
	events := m.Events(t.Context())
	done := make(chan []EventKind)
	go func() {
		var got []EventKind
		for e := range events {
			got = append(got, e.Kind)
		}
		done <- got
	}()
	if err := m.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := <-done
	if len(got) < 4 || got[0] != EventNew || got[1] != EventIdentified {
		t.Errorf("got events %v, want new, identified (twice) and rtt", got)
	}
	if lost := m.Stats().EventsLost; lost != 0 {
		t.Errorf("%d events were lost of a file", lost)
	}
	if err := m.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("second Run: got %v, want %v", err, ErrRunning)
	}
}

// ended waits for the result of Run.
func ended(t *testing.T, done <-chan error) error {
	t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("Run goes on")
		return nil
	}
}

// TestRunEnds checks that Run ends with its context while a stream gives no data,
// and while a reader of events has stopped reading.
func TestRunEnds(t *testing.T) {
	r, w := io.Pipe()
	go w.Write(pcapOf(t, decap.LinkRaw, at(0, clientAddr, serverAddr, []byte("one"))))
	source, err := NewReader(r)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(source, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	m.Events(ctx) // never read
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	cancel()
	w.CloseWithError(io.EOF)
	if err := ended(t, done); !errors.Is(err, context.Canceled) && err != nil {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	for _, conf := range []*Config{{MaxConnections: -1}, {MaxHandshakes: -1}, {Idle: -1}, {EventQueue: -1}, {EventQueue: math.MaxInt}, {MaxConnections: maxConnectionsLimit + 1}} {
		if _, err := NewTracker(conf); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: got %v, want %v", conf, err, ErrConfig)
		}
	}
	if _, err := New(nil, nil); !errors.Is(err, ErrConfig) {
		t.Errorf("no source: got %v, want %v", err, ErrConfig)
	}
}
