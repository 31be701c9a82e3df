package udp

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"
)

// TestWaitingSocketHoldsNoBuffers checks that a socket gives its buffers back before it waits,
// and that what was read is valid until then.
func TestWaitingSocketHoldsNoBuffers(t *testing.T) {
	a, b := listen(t, "udp", "127.0.0.1:0", nil), listen(t, "udp", "127.0.0.1:0", nil)
	engine := b.engine.(*kernelEngine)
	ms := make([]Message, 8)
	for i := range 3 {
		want := bytes.Repeat([]byte{byte(i)}, 1000)
		if err := a.Write(&Message{Data: want, Remote: b.LocalAddr()}); err != nil {
			t.Fatal(err)
		}
		b.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := b.ReadBatch(ms); n != 1 || err != nil || !bytes.Equal(ms[0].Data, want) {
			t.Fatalf("read %d messages, %v", n, err)
		}
		if engine.rx == nil {
			t.Error("the socket has given back the buffers of what was just read")
		}
		engine.recv = func(fd uintptr) bool {
			done := engine.recvmmsg(fd)
			if !done { // the read will wait
				b.SetReadDeadline(time.Now())
			}
			return done
		}
		n, err := b.ReadBatch(ms)
		engine.recv = engine.recvmmsg
		if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read %d messages, %v", n, err)
		}
		if engine.rx != nil || ms[0].Data != nil {
			t.Error("the socket has kept its buffers while it waited")
		}
	}
}

// TestReceiverGrows checks that a new receiver is small, and grows when many messages come at
// once, up to what the reader asks for.
func TestReceiverGrows(t *testing.T) {
	r := newReceiver(false, firstBatch)
	for _, step := range []struct{ came, want, got int }{
		{0, 100, 2}, {2, 100, 4}, {3, 100, 4}, {4, 100, 8}, {8, 1, 1}, {1, 8, 8},
		{8, 100, 16}, {16, 100, 32}, {32, 100, 64}, {64, 100, 100}, {100, 100, 100}, {100, 3, 3},
	} {
		r.received(step.came)
		hdrs := r.arm(step.want)
		if len(hdrs) != step.got {
			t.Errorf("room for %d messages of %d, want %d", len(hdrs), step.want, step.got)
		}
		for i := range hdrs {
			if hdrs[i].hdr.Iov != &r.iovs[i] || r.iovs[i].Base != &r.bufs[i][0] || int(r.iovs[i].Len) != r.size {
				t.Fatalf("message %d has no buffer of its own", i)
			}
		}
	}
}

// TestLargeReceiverIsNotKept checks that a receiver that has grown is given up when it has been
// larger than needed for some time.
func TestLargeReceiverIsNotKept(t *testing.T) {
	now := time.Now()
	long := now.Add(-receiverLife - time.Second)
	for _, test := range []struct {
		room, most int
		needed     time.Time
		kept       bool
	}{
		{firstBatch, 0, time.Time{}, true},
		{64, 17, long, true}, {64, 16, long, false}, {64, 16, now, true}, {64, 0, now, true}, {64, 0, long, false},
	} {
		r := newReceiver(false, test.room)
		r.needed = test.needed
		r.received(test.most)
		if kept := r.rest(); kept != test.kept {
			t.Errorf("room %d, needed %d: kept is %v", test.room, test.most, kept)
		} else if kept && (r.got != 0 || r.most != 0) {
			t.Error("the next socket finds old counts")
		}
	}
}
