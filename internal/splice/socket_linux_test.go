package splice

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRestore checks that a socket that is made from numbers continues a connection, with the
// options of the first socket.
func TestRestore(t *testing.T) {
	t.Parallel()
	loopback(t)
	p := mustPeeker(t)
	for name, c := range map[string]struct {
		listen, dial string
		shut         bool
	}{
		"IPv4":                 {"127.0.0.1:0", "127.0.0.1", false},
		"IPv4, shut":           {"127.0.0.1:0", "127.0.0.1", true},
		"IPv6":                 {"[::1]:0", "::1", false},
		"IPv6, shut":           {"[::1]:0", "::1", true},
		"IPv4 on an IPv6 port": {"[::]:0", "127.0.0.1", false},
	} {
		t.Run(name, func(t *testing.T) {
			a, d := connect(t, c.listen, c.dial)
			transfer(t, d, a, 1000)
			transfer(t, a, d, 3000)
			if err := errors.Join(a.SetNoDelay(false), a.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 77 * time.Second, Interval: 5 * time.Second, Count: 3})); err != nil {
				t.Fatal(err)
			}
			before, view := settingsOf(t, a), viewOf(t, p, a, d)
			again := replace(t, a, before, &view, c.shut)
			transfer(t, d, again, 1<<20)
			transfer(t, again, d, 1<<20)
			if after := settingsOf(t, again); after != before {
				t.Errorf("settings %+v, want %+v", after, before)
			}
			after := viewOf(t, p, again, d)
			for _, v := range []struct {
				name      string
				got, want any
			}{
				{"SACK", after.Sack, view.Sack}, {"timestamps", after.Timestamps, view.Timestamps},
				{"scales", [2]uint8{after.SndScale, after.RcvScale}, [2]uint8{view.SndScale, view.RcvScale}},
				{"microseconds", after.Usec, uint8(0)}, {"clamp", after.MssClamp, view.MssClamp},
			} {
				if v.got != v.want {
					t.Errorf("%s %v, want %v", v.name, v.got, v.want)
				}
			}
			if after.Mss < view.Mss {
				t.Errorf("MSS %d, want at least %d", after.Mss, view.Mss)
			}
			wantListen(t, a.LocalAddr())
			again.CloseWrite()
			if n, err := io.Copy(io.Discard, d); n != 0 || err != nil {
				t.Errorf("%d bytes, %v, want the end", n, err)
			}
		})
	}
}

// replace replaces a socket by one that is made from numbers, and checks that the peer hears of the
// window in the right way.
func replace(t *testing.T, c *net.TCPConn, s settings, v *peekView, shut bool) *net.TCPConn {
	t.Helper()
	l := &leg{
		tuple: tupleOf(c), settings: s, sndNxt: v.SndNxt, rcvNxt: v.RcvNxt,
		window: 1 << 16, sndScale: v.SndScale, rcvScale: v.RcvScale, mss: uint16(v.MssClamp),
		timestamps: v.Timestamps != 0, sack: v.Sack != 0, shut: shut,
	}
	fd, err := l.reserve()
	if err != nil {
		t.Fatal(err)
	}
	if err := control(c, func(fd int) (err error) {
		l.timestamp, err = clock(fd)
		return errors.Join(err, freeze(fd), discard(fd))
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.restore(fd); err != nil {
		t.Fatal(err)
	}
	again, err := connOf(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { again.Close() })
	opened, probed := counter(t, "TCPFromZeroWindowAdv"), counter(t, "TCPWinProbe")
	if err := l.resume(again); err != nil {
		t.Fatal(err)
	}
	if got, want := counter(t, "TCPFromZeroWindowAdv")-opened, int64(l.spare()); got != want {
		t.Errorf("the window was opened %d times, want %d", got, want)
	}
	if got, want := counter(t, "TCPWinProbe")-probed, int64(1-l.spare()); got != want {
		t.Errorf("%d probes, want %d", got, want) // the peer ignores the window in a probe
	}
	return again
}

// wantListen checks that a port can be listened on, although a connection uses it.
func wantListen(t *testing.T, at net.Addr) {
	t.Helper()
	l, err := net.Listen("tcp", at.String())
	if err != nil {
		t.Errorf("the port cannot be listened on: %v", err)
		return
	}
	l.Close()
}

// TestDiscard checks that goroutines that wait for a socket return, and that its peer hears of
// nothing before it sends.
func TestDiscard(t *testing.T) {
	t.Parallel()
	loopback(t)
	a, d := connect(t, "127.0.0.1:0", "127.0.0.1")
	read := make(chan error)
	go func() {
		_, err := io.Copy(io.Discard, a)
		read <- err
	}()
	if err := control(a, func(fd int) error {
		if err := freeze(fd); err != nil {
			return err
		}
		return discard(fd)
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err == nil {
		t.Error("the end of the stream, want an error")
	}
	a.Close()
	state := func() uint8 {
		var info *unix.TCPInfo
		if err := control(d, func(fd int) (err error) {
			info, err = unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return info.State
	}
	if got := state(); got != established {
		t.Errorf("the peer is in state %d, want %d", got, established)
	}
	if _, err := d.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Read(make([]byte, 1)); fmt.Sprint(err) == "EOF" || err == nil {
		t.Errorf("%v, want a reset", err)
	}
}

func settingsOf(t *testing.T, c *net.TCPConn) (s settings) {
	t.Helper()
	if err := control(c, func(fd int) (err error) {
		s, err = readSettings(fd, tupleOf(c).local.Addr())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return s
}

func viewOf(t *testing.T, p *peeker, c, other *net.TCPConn) peekView {
	t.Helper()
	views, err := p.peek(tupleOf(c), tupleOf(other))
	if err != nil || views[0].Found == 0 {
		t.Fatalf("found %d, %v", views[0].Found, err)
	}
	return views[0]
}
