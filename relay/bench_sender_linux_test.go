package relay

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/cid"
)

// liveSenderVar is set if the process is the sender of BenchmarkLive.
const liveSenderVar = "QUICWAY_LIVE_SENDER"

// liveFD is the sender's first socket.
const liveFD = 3

// send starts the process of the sender, which gets the sockets, and alone has them.
func (l *live) send() {
	exe, err := os.Executable()
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestLiveSender$")
	cmd.Env, cmd.Stderr = append(os.Environ(), liveSenderVar+"=1"), os.Stderr
	for _, conn := range l.from {
		file, err := conn.File()
		if err != nil {
			l.Fatal(err)
		}
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
		conn.Close()
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		l.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	l.say, l.hear = stdin, bufio.NewReader(stdout)
	l.Cleanup(func() {
		stdin.Close()
		_ = cmd.Wait()
	})
}

// order has the sender send to a port of the relay for the time of a turn. A rate in packets a
// second has it send one by one, or trains; 0 means as fast as it can. order returns how many
// packets it has sent, and how long it was in system calls for that.
func (l *live) order(port uint16, flows, rate int) (sent int, calls time.Duration) {
	fmt.Fprintf(l.say, "10.1.0.2:%d %d %d\n", port, flows, rate)
	if _, err := fmt.Fscanln(l.hear, &sent, &calls); err != nil {
		l.Fatalf("the sender has ended: %v", err)
	}
	return sent, calls
}

// TestLiveSender is the process of the sender: for each line with an address, a number of flows
// and a rate, it sends for the time of a turn.
func TestLiveSender(t *testing.T) {
	if os.Getenv(liveSenderVar) == "" {
		t.Skip("is run by BenchmarkLive and BenchmarkPaced")
	}
	runtime.LockOSThread()
	var cpu unix.CPUSet
	cpu.Set(0)
	if err := unix.SchedSetaffinity(0, &cpu); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var to string
		var flows, rate int
		if _, err := fmt.Sscan(lines.Text(), &to, &flows, &rate); err != nil {
			t.Fatal(err)
		}
		s := newLiveSender(flows, netip.MustParseAddrPort(to))
		s.turn(rate)
		fmt.Println(s.sent, int64(s.calls))
	}
}

// liveSender sends packets of all flows in turns, or trains of the only one. It uses the sockets
// without Go's poller, which would wake a thread for each packet that has left.
type liveSender struct {
	to      unix.SockaddrInet4
	packets [][]byte // by flow: a packet, or a train
	segment []byte   // the control message of a train, or nil
	sent    int
	calls   time.Duration
}

func newLiveSender(flows int, to netip.AddrPort) *liveSender {
	s := &liveSender{to: unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}}
	for i := range flows {
		packet := append([]byte{0x40}, liveKey(i).ID(cid.Peer, 0).Bytes()...)
		s.packets = append(s.packets, append(packet, make([]byte, benchPacket-len(packet))...))
	}
	if flows == 1 {
		s.packets[0] = bytes.Repeat(s.packets[0], benchTrain)
		s.segment = make([]byte, unix.CmsgSpace(2))
		h := (*unix.Cmsghdr)(unsafe.Pointer(&s.segment[0]))
		h.Level, h.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
		h.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(s.segment[unix.CmsgLen(0):], benchPacket)
	}
	return s
}

// turn sends for the time of a turn. What is late is sent at once, but not more than of a
// millisecond.
func (s *liveSender) turn(rate int) {
	gap := time.Duration(0)
	if rate > 0 {
		gap = time.Second * time.Duration(s.count()) / time.Duration(rate)
	}
	now := monotonic()
	end, next := now+liveTurn, now
	for flow := 0; now < end; flow = (flow + 1) % len(s.packets) {
		s.send(flow, now)
		done := monotonic()
		s.calls += done - now
		next = max(next+gap, done-time.Millisecond)
		for now = done; now < next; {
			now = monotonic()
		}
	}
}

// count returns how many packets are sent at once.
func (s *liveSender) count() int { return len(s.packets[0]) / benchPacket }

// send sends a packet of a flow, or a train, with the time.
func (s *liveSender) send(flow int, now time.Duration) {
	data := s.packets[flow]
	for packet := range slices.Chunk(data, benchPacket) {
		binary.NativeEndian.PutUint64(packet[stampAt:], uint64(now))
	}
	if _, err := unix.SendmsgN(liveFD+flow, data, s.segment, &s.to, 0); err == nil {
		s.sent += s.count()
	}
}

// stampAt is where a packet has the time when it was sent.
const stampAt = 1 + cid.Len

// monotonic returns the time of CLOCK_MONOTONIC. It makes no system call, unlike
// unix.ClockGettime.
func monotonic() time.Duration { return clockOffset + time.Since(clockStart) }

var (
	clockStart  = time.Now()
	clockOffset = func() time.Duration {
		var t unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // with a valid clock it does not fail
		return time.Duration(t.Nano())
	}()
)
