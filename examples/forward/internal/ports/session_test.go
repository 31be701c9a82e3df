package ports

import "testing"

// TestReason checks that a session says why it has ended.
func TestReason(t *testing.T) {
	l := newLab(t)
	for range 20 {
		conn, _ := l.connect()
		s := NewSession(conn, l.conf())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(t.Context()) }()
		if err := conn.CloseWithError(1, ""); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err == nil {
			t.Fatal("no reason")
		}
	}
}
