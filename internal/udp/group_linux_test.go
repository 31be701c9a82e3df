package udp

import "testing"

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
