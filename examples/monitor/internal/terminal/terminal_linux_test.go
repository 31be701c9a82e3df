package terminal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/monitor"
)

// childMode is the environment variable that makes the test binary the program that a test
// runs in a terminal. Its value is "replay", or "fail" for a source that fails.
const childMode = "QUICWAY_TERMINAL_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childMode); mode != "" {
		child(mode)
		return
	}
	os.Exit(m.Run())
}

// child shows the replay of a capture in the terminal on which it runs.
func child(mode string) {
	if !Usable(os.Stdin, os.Stdout) {
		fmt.Println("no view")
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var log Log
	source, err := newReplay(&log, mode == "fail")
	if err == nil {
		var m *monitor.Monitor
		if m, err = monitor.New(source, nil); err == nil {
			err = Run(ctx, m, os.Stdin, os.Stdout, &log)
		}
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("quit")
}

// replay is a live source that delivers a capture. It waits for the parent before the first
// packet from the port to which a client of the capture moves, and then for Close.
type replay struct {
	monitor.Source
	log      io.Writer
	fail     bool
	logging  sync.Once
	closing  sync.Once
	released chan struct{}
	closed   chan struct{}
}

func newReplay(log io.Writer, fail bool) (*replay, error) {
	file, err := monitor.OpenFile("../../testdata/sample.pcap")
	r := &replay{Source: file, log: log, fail: fail, released: make(chan struct{}), closed: make(chan struct{})}
	go func() {
		if n, _ := os.NewFile(3, "gate").Read(make([]byte, 1)); n > 0 {
			close(r.released)
		}
	}()
	return r, err
}

func (r *replay) Live() bool { return true }

func (r *replay) Close() error {
	r.closing.Do(func() { close(r.closed) })
	return nil
}

func (r *replay) Read(p *monitor.Packet) error {
	switch err := r.Source.Read(p); {
	case errors.Is(err, io.EOF):
		<-r.closed
		return net.ErrClosed
	case err != nil:
		return err
	}
	const moved = 50123 // the source port, behind an IPv4 header
	if int(p.Data[20])<<8+int(p.Data[21]) == moved {
		select {
		case <-r.released:
		case <-r.closed:
			return net.ErrClosed
		}
		if r.fail {
			return errors.New("the interface is gone")
		}
	}
	r.logging.Do(func() { fmt.Fprintln(r.log, "logged") })
	p.Time = time.Now()
	return nil
}

// terminal is a terminal on which the child runs.
type terminal struct {
	*testing.T
	master, slave *os.File
	gate          *os.File
	command       *exec.Cmd
	before        *unix.Termios

	mu     sync.Mutex // guards the following
	screen *vt.Emulator
	hidden bool // the cursor
	output bytes.Buffer
	change chan struct{} // after output
}

// open starts the child in a terminal of 80 x 24 cells.
func open(t *testing.T, mode string, environment ...string) *terminal {
	t.Helper()
	fatal := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &terminal{T: t, screen: vt.NewEmulator(fullWidth, fullHeight), change: make(chan struct{}, 1)}
	s.screen.SetCallbacks(vt.Callbacks{CursorVisibility: func(visible bool) { s.hidden = !visible }})
	var err error
	s.master, s.slave, err = pty.Open()
	fatal(err)
	t.Cleanup(func() { s.master.Close(); s.slave.Close() })
	fatal(pty.Setsize(s.master, &pty.Winsize{Cols: fullWidth, Rows: fullHeight}))
	s.before, err = unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	fatal(err)
	gate, opener, err := os.Pipe()
	fatal(err)
	s.gate = opener
	t.Cleanup(func() { gate.Close(); opener.Close() })
	s.command = exec.CommandContext(t.Context(), os.Args[0])
	s.command.Env = append(append(os.Environ(), "TERM=xterm-256color", childMode+"="+mode), environment...)
	s.command.Stdin, s.command.Stdout, s.command.Stderr = s.slave, s.slave, s.slave
	s.command.ExtraFiles = []*os.File{gate}
	s.command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	go io.Copy(s.master, s.screen) // the answers of the terminal
	go s.read()
	fatal(s.command.Start())
	return s
}

// read draws what the child writes.
func (s *terminal) read() {
	buf := make([]byte, 4096)
	for {
		n, err := s.master.Read(buf)
		s.mu.Lock()
		s.output.Write(buf[:n])
		s.screen.Write(buf[:n])
		s.mu.Unlock()
		select {
		case s.change <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// await waits until texts are on the screen, in this order.
func (s *terminal) await(texts ...string) {
	s.Helper()
	timeout := time.After(time.Minute)
	for {
		s.mu.Lock()
		screen := s.screen.String()
		s.mu.Unlock()
		rest, found := screen, true
		for _, text := range texts {
			if _, rest, found = strings.Cut(rest, text); !found {
				break
			}
		}
		if found {
			return
		}
		select {
		case <-s.change:
		case <-timeout:
			s.Fatalf("the screen has no %q:\n%s", texts, screen)
		}
	}
}

func (s *terminal) press(keys string) {
	s.Helper()
	if _, err := io.WriteString(s.master, keys); err != nil {
		s.Fatal(err)
	}
}

// release lets the client of the capture move.
func (s *terminal) release() {
	s.Helper()
	if _, err := s.gate.Write([]byte{1}); err != nil {
		s.Fatal(err)
	}
}

// ended waits for the end of the child, and checks that the terminal is as it was before,
// and that the child has then written only the texts.
func (s *terminal) ended(code int, texts ...string) {
	s.Helper()
	s.command.Wait()
	if got := s.command.ProcessState.ExitCode(); got != code {
		s.Errorf("the program ended with %d, want %d", got, code)
	}
	s.await(texts...)
	after, err := unix.IoctlGetTermios(int(s.slave.Fd()), unix.TCGETS)
	if err != nil {
		s.Fatal(err)
	}
	if *after != *s.before {
		s.Errorf("the terminal has the settings %+v, before %+v", *after, *s.before)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.screen.IsAltScreen() || s.hidden {
		s.Errorf("alternate screen %v, hidden cursor %v after the end", s.screen.IsAltScreen(), s.hidden)
	}
	if got, want := strings.TrimSpace(s.screen.String()), strings.Join(texts, "\n"); got != want {
		s.Errorf("got %q on the screen after the end, want %q", got, want)
	}
}

// TestTerminal uses the view in a terminal, as a user does.
func TestTerminal(t *testing.T) {
	s := open(t, "replay")
	s.await("2 connections", "NAME", "moving.example", "192.0.2.1:50000", "</b>.example", "logged")
	s.release()
	s.await("1 path change ", "● moving.example", "192.0.2.1:50123", "rebinding 192.0.2.1:50000 → 192.0.2.1:50123 (high) moving.example")
	s.press("/markup\r")
	s.await("filter (1 of 2): markup")
	s.press("\x1b") // Escape
	s.await("moving.example")
	s.press("\x1b[B\r") // down and Enter
	s.await("Connection 1  <b>markup</b>.example", "JA4", "Connection IDs")
	if err := pty.Setsize(s.master, &pty.Winsize{Cols: 120, Rows: 60}); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.screen.Resize(120, 60)
	s.mu.Unlock()
	s.await("Connection 1", "1 path", "0 path changes", "esc list")
	s.press("q")
	s.ended(0, "logged", "quit")
}

// TestTerminalSignal checks that Ctrl-C and a signal end the view as q does.
func TestTerminalSignal(t *testing.T) {
	for name, end := range map[string]func(*terminal){
		"Ctrl-C":  func(s *terminal) { s.press("\x03") },
		"SIGTERM": func(s *terminal) { s.command.Process.Signal(syscall.SIGTERM) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, "replay")
			s.await("2 connections", "moving.example")
			end(s)
			s.ended(0, "logged", "quit")
		})
	}
}

// TestTerminalError checks that an error of the source ends the view, and is written after
// the terminal is as before.
func TestTerminalError(t *testing.T) {
	s := open(t, "fail")
	s.await("2 connections", "moving.example")
	s.release()
	s.ended(1, "logged", "the interface is gone")
}

// TestTerminalDumb checks that there is no view on a terminal that cannot move its cursor.
func TestTerminalDumb(t *testing.T) {
	s := open(t, "replay", "TERM=dumb")
	s.ended(0, "no view")
}

// TestTerminalColour checks that NO_COLOR is respected.
func TestTerminalColour(t *testing.T) {
	yellow := regexp.MustCompile(`\x1b\[([0-9]+;)*33[;m]`)
	for setting, want := range map[string]bool{"NO_COLOR=": true, "NO_COLOR=1": false, "NO_COLOR=yes": false} {
		s := open(t, "replay", setting)
		s.await("2 connections", "moving.example")
		s.release()
		s.await("● moving.example")
		s.press("q")
		s.ended(0, "logged", "quit")
		if got := yellow.MatchString(s.output.String()); got != want {
			t.Errorf("%s: got colours %v, want %v: %q", setting, got, want, s.output.String())
		}
	}
}

// TestUsable checks that there is no view unless both ends are terminals.
func TestUsable(t *testing.T) {
	t.Setenv("TERM", "xterm")
	_, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if !Usable(tty, tty) || Usable(r, tty) || Usable(tty, w) {
		t.Error("a view is wanted if both ends are terminals, and only then")
	}
	for _, kind := range []string{"", "dumb"} {
		t.Setenv("TERM", kind)
		if Usable(tty, tty) {
			t.Errorf("TERM=%q has a view", kind)
		}
	}
}
