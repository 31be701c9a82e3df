package udp

import (
	"errors"
	"syscall"
	"testing"
)

// fullConn is a socket without room.
type fullConn struct{ syscall.RawConn }

func (fullConn) Write(func(uintptr) bool) error { return errFull }

// TestFullMember checks that packets for which a socket has no room are counted.
func TestFullMember(t *testing.T) {
	g, err := NewGroup()
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	train := Message{Data: make([]byte, 300), SegmentSize: 100, Remote: listen(t, "udp", "127.0.0.1:0", nil).LocalAddr()}
	err = g.engine.(*epollGroup).kernel.writeTo(fullConn{}, false, []Message{train, {Data: []byte{1}, Remote: train.Remote, ECN: 1}})
	if s := g.Stats(); !errors.Is(err, errFull) || s.TxErrors != 4 || s.TxPackets != 0 {
		t.Errorf("%v, %d packets are lost, and %d sent", err, s.TxErrors, s.TxPackets)
	}
}

// TestGroupMarks checks that the ECN mark and the hop limit of a message are sent, and those of
// what comes back are received.
func TestGroupMarks(t *testing.T) {
	g, err := NewGroup()
	if err != nil {
		t.Fatal(err)
	}
	testGroup(t, g, func(t *testing.T, g *Group, got <-chan Received) {
		for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
			peer := listen(t, "udp", address, nil)
			m, err := g.Dial(peer.LocalAddr(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := m.WriteBatch([]Message{{Data: []byte{1}, ECN: 1, HopLimit: 7}}); err != nil {
				t.Fatal(err)
			}
			in := receive(t, peer, 1)[0]
			if in.ECN != 1 || in.HopLimit != 7 {
				t.Errorf("%s: the peer got mark %d and hop limit %d", address, in.ECN, in.HopLimit)
			}
			if err := peer.Write(&Message{Data: []byte{1}, Remote: in.Remote, ECN: 2, HopLimit: 9}); err != nil {
				t.Fatal(err)
			}
			if r := next(t, got); r.Message.ECN != 2 || r.Message.HopLimit != 9 {
				t.Errorf("%s: the member got mark %d and hop limit %d", address, r.Message.ECN, r.Message.HopLimit)
			}
		}
	})
}
