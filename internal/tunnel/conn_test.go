package tunnel

import (
	"bytes"
	"errors"
	"net"
	"testing"
)

// recorder is a connection that records what is written, call by call.
type recorder struct {
	net.Conn
	writes [][]byte
	err    error
}

func (r *recorder) Write(b []byte) (int, error) {
	r.writes = append(r.writes, bytes.Clone(b))
	return len(b), r.err
}

// TestConn checks that what is written between Hold and Release is written at once and in order,
// that there is a bound to what is kept, and that an error of Release is not forgotten.
func TestConn(t *testing.T) {
	record := bytes.Repeat([]byte{1}, writeSize)
	for _, test := range []struct {
		name    string
		records int
		writes  int
	}{{"nothing", 0, 0}, {"a batch", 4, 1}, {"more than is kept", 5, 2}} {
		r := &recorder{}
		c := &Conn{Conn: r}
		c.Hold()
		for range test.records {
			if _, err := c.Write(record); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Release(); err != nil {
			t.Fatal(err)
		}
		if got := len(bytes.Join(r.writes, nil)); len(r.writes) != test.writes || got != test.records*len(record) || len(c.kept) > 0 {
			t.Errorf("%s: %d writes of %d bytes, want %d of %d", test.name, len(r.writes), got, test.writes, test.records*len(record))
		}
		if _, err := c.Write([]byte{2}); err != nil || len(r.writes) != test.writes+1 {
			t.Errorf("%s: after Release: %d writes, %v", test.name, len(r.writes), err)
		}
		r.err = errors.New("broken")
		c.Hold()
		_, _ = c.Write(record)
		if err := c.Release(); !errors.Is(err, r.err) {
			t.Errorf("%s: Release returns %v", test.name, err)
		}
		if _, err := c.Write(record); !errors.Is(err, r.err) {
			t.Errorf("%s: Write after that returns %v", test.name, err)
		}
	}
}
