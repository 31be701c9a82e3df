package tcptest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// End is how a connection ends.
type End int

// The ways in which a connection ends. Each end checks that it sees it.
const (
	EachWhenDone End = iota // each end closes its direction after its last byte
	ClientFirst             // the server sends its last half after the client has closed
	ServerFirst             // the client sends its last half after the server has closed
	ClientResets            // the client resets the connection after half of its bytes
	ServerResets            // the server resets the connection after half of its bytes
	numEnds
)

// Ends are all ways in which a connection ends.
func Ends() (all []End) {
	for e := range numEnds {
		all = append(all, e)
	}
	return all
}

func (e End) String() string {
	return [...]string{"each when done", "client first", "server first", "client resets", "server resets"}[e]
}

// Exchange is what the two ends of a connection send each other.
type Exchange struct {
	Seed     uint64        // of the bytes; no two exchanges of a Server at a time have the same
	Up, Down int64         // bytes from the client, and from the server
	End      End           // how the connection ends
	Pause    time.Duration // longest random pause between two writes; 0: none
	Slow     time.Duration // longest random pause between two reads; 0: none
	Timeout  time.Duration // after which an end gives up; 0: 3 minutes

	// Half is closed when both ends may send the last half of their bytes; nil: at any time. An end
	// that has lost its connection does not wait for it.
	Half <-chan struct{}
}

// Server is the server's ends of connections. It finds the Exchange of a connection by the
// seed that the client sends first.
type Server struct {
	listener net.Listener
	prefix   []byte
	running  sync.WaitGroup

	mu       sync.Mutex // guards the following
	expected map[uint64]*expected
}

type expected struct {
	Exchange
	result chan error
}

// Serve accepts connections until l is closed. prefix comes before the client's bytes.
func Serve(l net.Listener, prefix []byte) *Server {
	s := &Server{listener: l, prefix: prefix, expected: make(map[uint64]*expected)}
	s.running.Go(s.accept)
	return s
}

// Close closes the listener, and waits until all connections have ended.
func (s *Server) Close() error {
	err := s.listener.Close()
	s.running.Wait()
	return err
}

// Run does an Exchange over a connection that dial opens, and returns what either end has
// found wrong.
func (s *Server) Run(x Exchange, dial func() (*net.TCPConn, error)) error {
	if x.Timeout == 0 {
		x.Timeout = 3 * time.Minute
	}
	e := &expected{Exchange: x, result: make(chan error, 1)}
	s.mu.Lock()
	s.expected[x.Seed] = e
	s.mu.Unlock()
	defer s.take(x.Seed)
	conn, err := dial()
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	err = x.runClient(conn)
	if err != nil {
		err = fmt.Errorf("client: %w", err)
	}
	select {
	case served := <-e.result:
		return errors.Join(err, served)
	case <-time.After(x.Timeout):
		return errors.Join(err, errors.New("server: the connection does not arrive or end"))
	}
}

// take returns the exchange with a seed, once.
func (s *Server) take(seed uint64) *expected {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.expected[seed]
	delete(s.expected, seed)
	return e
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.running.Go(func() { s.serve(conn.(*net.TCPConn)) })
	}
}

// serve does the exchange of a connection. Of a connection whose beginning does not
// arrive, the client learns by its timeout.
func (s *Server) serve(conn *net.TCPConn) {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Minute))
	in := &socket{TCPConn: conn}
	begin := make([]byte, len(s.prefix)+8)
	if _, err := io.ReadFull(in, begin); err != nil || string(begin[:len(s.prefix)]) != string(s.prefix) {
		return
	}
	e := s.take(binary.BigEndian.Uint64(begin[len(s.prefix):]))
	if e == nil {
		return
	}
	err := e.runServer(in)
	if err != nil {
		err = fmt.Errorf("server: %w", err)
	}
	e.result <- err
}

const fromClient, fromServer = 0, 1 // directions of streams

// runClient does the client's part, and closes the connection.
func (x *Exchange) runClient(conn *net.TCPConn) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(x.Timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, x.Seed)); err != nil {
		return err
	}
	return x.run(&socket{TCPConn: conn}, side{
		sends: fromClient, out: x.Up, in: x.Down,
		waits: x.End == ServerFirst, resets: x.End == ClientResets, isReset: x.End == ServerResets,
	})
}

// runServer does the server's part, after the seed.
func (x *Exchange) runServer(conn *socket) error {
	if err := conn.SetDeadline(time.Now().Add(x.Timeout)); err != nil {
		return err
	}
	return x.run(conn, side{
		sends: fromServer, out: x.Down, in: x.Up,
		waits: x.End == ClientFirst, resets: x.End == ServerResets, isReset: x.End == ClientResets,
	})
}

// side is what one end does.
type side struct {
	sends   byte // the direction of what it sends
	out, in int64
	waits   bool // with its last half, for the other end's FIN
	resets  bool // after half of its bytes
	isReset bool // by the other end
}

// run sends and checks at the same time.
func (x *Exchange) run(conn *socket, s side) error {
	ended := make(chan struct{}) // the other end has closed its direction, or all is lost
	sent := make(chan error, 1)
	go func() { sent <- x.send(conn, s, ended) }()
	received := x.receive(conn, s)
	close(ended)
	if s.isReset {
		<-sent // sees the reset too, or nothing
		if !conn.wasReset(received) {
			return fmt.Errorf("want a reset, got %v", received)
		}
		return nil
	}
	if received != nil {
		// The rest need not be sent, and might not be read.
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
	}
	err := <-sent
	if s.resets {
		return err
	}
	return errors.Join(received, err)
}

func (x *Exchange) send(conn *socket, s side, ended <-chan struct{}) error {
	out := newStream(x.Seed, s.sends, x.Pause)
	if err := out.write(conn, s.out/2); err != nil {
		return err
	}
	if s.resets {
		return errors.Join(conn.SetLinger(0), conn.Close())
	}
	if x.Half != nil {
		select {
		case <-x.Half:
		case <-ended:
		}
	}
	if s.waits {
		<-ended
	}
	if err := out.write(conn, s.out-s.out/2); err != nil {
		return err
	}
	return conn.CloseWrite()
}

func (x *Exchange) receive(conn *socket, s side) error {
	if err := newStream(x.Seed, 1-s.sends, x.Slow).check(conn, s.in); err != nil {
		return err
	}
	return checkEnd(conn)
}
