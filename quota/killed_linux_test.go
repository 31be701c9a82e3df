package quota

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/xdp"
)

// TestKilledLeavesNothing checks that nothing is dropped any more after the process was
// killed: at once if the program is not pinned, and when the lease ends if it is.
func TestKilledLeavesNothing(t *testing.T) {
	if pin, ok := os.LookupEnv("QUICWAY_TEST_KILLED"); ok {
		denyUntilKilled(t, pin)
		return
	}
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned=%v", pinned), func(t *testing.T) {
			w := newHosts(t)
			pin := ""
			if pinned {
				pin = filepath.Join(nettest.BPFFS(t), "quicway")
			}
			child, heard := w.denier(pin)
			if heard(300 * time.Millisecond) {
				t.Error("a packet arrived though its address is denied")
			}
			if err := child.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			child.Wait()
			nettest.Eventually(t, "packets of the denied address arrive", func() bool { return heard(100 * time.Millisecond) })
			if pinned {
				if err := xdp.Unpin(pin); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestSuccessorOfKilled checks that another process with the same pin takes over at once,
// and that decisions of the killed process have no effect.
func TestSuccessorOfKilled(t *testing.T) {
	w := newHosts(t)
	pin := filepath.Join(nettest.BPFFS(t), "quicway")
	child, heard := w.denier(pin)
	if heard(300 * time.Millisecond) {
		t.Error("a packet arrived though its address is denied")
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	child.Wait()
	killed := time.Now()
	program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}, Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	c := mustNew(t, &Config{XDP: program})
	c.enforcement.enforcer.guard(443, 4)
	if s := c.Stats(); s.Kernel[Denied] != 0 || s.KernelErrors != 0 {
		t.Errorf("packets that the killed process dropped are counted: %+v", s)
	}
	if heard(300*time.Millisecond) && time.Since(killed) < lease/2 {
		t.Error("nothing is denied between the two processes: this test shows nothing")
	}
	w.server.Do(func() error {
		_, err := program.Attach("eth0", xdp.Auto)
		return err
	})
	if !heard(10 * time.Second) {
		t.Error("no packet arrives: the entries of the killed process still hold")
	}
	deny := func(ttl time.Duration) {
		if err := c.Deny(netip.MustParsePrefix("10.3.0.2/32"), ttl, ""); err != nil {
			t.Fatal(err)
		}
	}
	deny(time.Hour)
	if heard(300 * time.Millisecond) {
		t.Error("a packet arrived though the second process denies its address")
	}
	deny(100 * time.Millisecond)
	nettest.Eventually(t, "the denial has ended", func() bool { return heard(100 * time.Millisecond) })
	if s := c.Stats(); s.Kernel[Denied] < 2 || s.KernelErrors != 0 {
		t.Errorf("the second process has counted %+v", s)
	}
	if err := errors.Join(c.Close(), program.Close(), xdp.Unpin(pin)); err != nil {
		t.Error(err)
	}
}

// denier starts a process on the server that denies the attacker's packets. heard sends
// such a packet, and reports whether it arrives.
func (w *town) denier(pin string) (child *exec.Cmd, heard func(patience time.Duration) bool) {
	w.Helper()
	w.server.Do(func() error {
		child = exec.Command(os.Args[0], "-test.run", "^TestKilledLeavesNothing$", "-test.v")
		child.Env = append(os.Environ(), "QUICWAY_TEST_KILLED="+pin)
		out, err := child.StdoutPipe()
		if err != nil {
			return err
		}
		if err := child.Start(); err != nil {
			return err
		}
		w.Cleanup(func() { child.Process.Kill(); child.Wait() })
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if strings.Contains(lines.Text(), "denying") {
				return nil
			}
		}
		return errors.New("the other process denies nothing")
	})
	sink := w.server.Listen("10.1.0.2:443")
	source := w.bad.Listen("10.3.0.2:0")
	w.Cleanup(func() { sink.Close(); source.Close() })
	return child, func(patience time.Duration) bool {
		w.Helper()
		if _, err := source.WriteTo([]byte("hello"), sink.LocalAddr()); err != nil {
			w.Fatal(err)
		}
		sink.SetReadDeadline(time.Now().Add(patience))
		_, _, err := sink.ReadFrom(make([]byte, 100))
		return err == nil
	}
}

// denyUntilKilled is the main function of the process that is killed.
func denyUntilKilled(t *testing.T, pin string) {
	program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.QuotaStage}, Pin: pin})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := program.Attach("eth0", xdp.Generic); err != nil {
		t.Fatal(err)
	}
	c := mustNew(t, &Config{XDP: program})
	c.enforcement.enforcer.guard(443, 4)
	if err := c.Deny(netip.MustParsePrefix("10.3.0.0/24"), 0, ""); err != nil {
		t.Fatal(err)
	}
	fmt.Println("denying")
	select {}
}
