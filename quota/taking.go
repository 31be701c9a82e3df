package quota

import (
	"errors"
	"fmt"
	"net"
	"reflect"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
)

// mayTake returns an error if a transport cannot be put under a quota.
func mayTake(t *quic.Transport) error {
	if t == nil || t.Conn == nil {
		return errors.New("there is no Conn: want &quic.Transport{Conn: conn}")
	}
	if _, taken := t.Conn.(takenConn); taken {
		return errors.New("it was given to a Controller already: use the Transport that this has returned")
	}
	if inUse(t) {
		return errors.New("it is in use: make the Transport first, and listen and dial with that")
	}
	if _, ok := t.Conn.(interface{ filtered() *filteredConn }); ok {
		return errors.New("its Conn has a packet filter already: pass the socket itself, not that of Controller.PacketConn")
	}
	if _, ok := t.Conn.LocalAddr().(*net.UDPAddr); !ok {
		return fmt.Errorf("%v is not a UDP address: want a socket as of net.ListenUDP", t.Conn.LocalAddr())
	}
	if conn, ok := t.Conn.(net.Conn); ok && conn.RemoteAddr() != nil {
		return fmt.Errorf("its Conn is connected to %v: want a socket as of net.ListenUDP, which serves all peers", conn.RemoteAddr())
	}
	return nil
}

// inUse reports whether a transport has been used. From then on it reads its Conn. No
// exported field tells, so inUse looks at an unexported one.
func inUse(t *quic.Transport) bool {
	conn := reflect.ValueOf(t).Elem().FieldByName("conn")
	return conn.IsValid() && conn.Kind() == reflect.Interface && !conn.IsNil()
}

// errTaken is the error of using a transport that a controller has taken over.
var errTaken = errors.New("quota: Controller.Transport has taken this quic.Transport over: use the Transport that it has returned")

// takenConn stands in a quic.Transport for the conn that a controller has taken out of it. It
// does not read or write, so that nothing goes past the quota. It sets no deadlines either:
// closing that quic.Transport would disturb the one that reads the conn.
type takenConn struct{ net.PacketConn }

func (takenConn) ReadFrom([]byte) (int, net.Addr, error) { return 0, nil, errTaken }
func (takenConn) WriteTo([]byte, net.Addr) (int, error)  { return 0, errTaken }
func (takenConn) SetReadBuffer(int) error                { return nil }
func (takenConn) SetWriteBuffer(int) error               { return nil }
func (takenConn) SetDeadline(time.Time) error            { return nil }
func (takenConn) SetReadDeadline(time.Time) error        { return nil }
func (takenConn) SetWriteDeadline(time.Time) error       { return nil }

// socketSet has the conns that the transports of a controller read. Two that read the same
// one would each miss the packets that the other gets.
type socketSet struct {
	mu    sync.Mutex
	conns map[net.PacketConn]struct{}
}

// add adds a conn, and reports whether it was not there.
func (s *socketSet) add(conn net.PacketConn) bool {
	if !reflect.ValueOf(conn).Comparable() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, exists := s.conns[conn]; exists {
		return false
	}
	if s.conns == nil {
		s.conns = make(map[net.PacketConn]struct{})
	}
	s.conns[conn] = struct{}{}
	return true
}

// remove removes a conn.
func (s *socketSet) remove(conn net.PacketConn) {
	if !reflect.ValueOf(conn).Comparable() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
}
