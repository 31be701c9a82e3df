package p2p

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/quic-go/quic-go/http3"
)

// TestAdaptersSurvive checks that HTTP/1.1, HTTP/2, gRPC, a WebSocket and HTTP/3 in both
// directions go on, each on one stream or connection, when the relay is killed, and then the direct path
// is lost.
func TestAdaptersSurvive(t *testing.T) {
	runFleet(t, 2, func(f *fleet) {
		direct := func(c *Config) { f.several(c); c.Policy = PreferDirect }
		client, server, grpcServer := f.host(direct), f.host(direct), f.host(direct)
		time.Sleep(time.Second)
		a, b := f.connect(client, server) // for HTTP/3, which has one server for a connection
		c, d := f.connect(client, server)
		end := f.serveHTTP(server, client.ID())
		defer end()
		endGRPC := f.serveGRPC(grpcServer, client.ID())
		defer endGRPC()
		asks := map[string]func(string) (string, error){
			"HTTP/1.1":           f.askHTTP(client, server),
			"HTTP/2":             f.askHTTP2(client, server),
			"WebSocket":          f.askWebSocket(client, server),
			"gRPC":               f.askGRPC(client, grpcServer),
			"HTTP/3":             f.askHTTP3(a, b),
			"HTTP/3 by accepter": f.askHTTP3(d, c),
		}
		conn, _ := client.dialedTo(server.ID())
		ask := func(when string) {
			for name, ask := range asks {
				if got, err := ask(when); err != nil || got != when {
					f.Errorf("%s, %s: got %q, %v", name, when, got, err)
				}
			}
		}
		ask("at the beginning")
		f.until(Direct, a, b, c, d, conn)
		time.Sleep(5 * time.Second)
		ask("on the direct path")
		f.kill(0)
		ask("without the relay")
		time.Sleep(30 * time.Second) // the endpoints notice
		f.net.Cut("198.51.100.1", "198.51.100.2")
		f.net.Cut("198.51.100.1", "198.51.100.3")
		ask("without the direct path")
		f.until(Relayed, a, b, c, d, conn)
		ask("on the standby relay")
		if now, _ := client.dialedTo(server.ID()); now != conn {
			f.Error("another connection was dialed")
		}
		f.alive(a, b, c, d, conn)
	})
}

// echo answers requests with their bodies, if they name the peer as they should.
func (f *fleet) echo(peer PeerID) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		if id, ok := PeerFromContext(r.Context()); !ok || id != peer || r.RemoteAddr != peer.String() {
			f.Errorf("%s: peer %v, %v, remote address %s, want %v", r.Proto, id, ok, r.RemoteAddr, peer)
		}
		_ = http.NewResponseController(w).EnableFullDuplex()
		body := bufio.NewReader(r.Body)
		for {
			line, err := body.ReadString('\n')
			if _, werr := io.WriteString(w, line); err != nil || werr != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
		}
	})
	mux.HandleFunc("/socket", func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, b) != nil {
				return
			}
		}
	})
	return mux
}

// serveHTTP serves HTTP/1.1 and HTTP/2 at a host's listener, and returns what ends that.
func (f *fleet) serveHTTP(h *host, client PeerID) (end func()) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{Handler: f.echo(client), ConnContext: ConnContext, Protocols: protocols}
	served := make(chan error, 1)
	go func() { served <- s.Serve(h.Listener()) }()
	return func() {
		_ = s.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			f.Errorf("serve: %v", err)
		}
	}
}

// url is the URL of a host's handler.
func (h *host) url(path string) string { return "http://" + h.ID().String() + path }

// post sends a line, and returns what comes back.
func post(client http.RoundTripper, url, text string) (string, error) {
	req, err := http.NewRequest(http.MethodPost, url, bytes.NewBufferString(text+"\n"))
	if err != nil {
		return "", err
	}
	resp, err := client.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(bytes.TrimSpace(b)), err
}

// askHTTP sends requests on one stream, which is kept.
func (f *fleet) askHTTP(from, to *host) func(string) (string, error) {
	streams := 0
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		streams++
		return from.DialContext(ctx, network, address)
	}}
	f.Cleanup(transport.CloseIdleConnections)
	return func(text string) (string, error) {
		got, err := post(transport, to.url("/echo"), text)
		if streams != 1 {
			err = errors.Join(err, fmt.Errorf("%d streams", streams))
		}
		return got, err
	}
}

// askHTTP2 sends lines in the body of one request.
func (f *fleet) askHTTP2(from, to *host) func(string) (string, error) {
	transport := &http.Transport{DialContext: from.DialContext, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	r, w := io.Pipe()
	req, err := http.NewRequest(http.MethodPost, to.url("/echo"), r)
	if err != nil {
		f.Fatal(err)
	}
	started := make(chan *http.Response, 1)
	go func() {
		resp, err := transport.RoundTrip(req)
		if err != nil {
			f.Error(err)
			resp = &http.Response{Body: http.NoBody}
		}
		started <- resp
	}()
	var answers *bufio.Reader
	f.Cleanup(func() { _ = w.Close(); transport.CloseIdleConnections() })
	return func(text string) (string, error) {
		if _, err := io.WriteString(w, text+"\n"); err != nil {
			return "", err
		}
		if answers == nil {
			resp := <-started
			if resp.ProtoMajor != 2 {
				return "", fmt.Errorf("protocol %s", resp.Proto)
			}
			answers = bufio.NewReader(resp.Body)
		}
		line, err := answers.ReadString('\n')
		return string(bytes.TrimSpace([]byte(line))), err
	}
}

// askWebSocket sends messages.
func (f *fleet) askWebSocket(from, to *host) func(string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DialContext: from.DialContext}}
	c, _, err := websocket.Dial(f.Context(), to.url("/socket"), &websocket.DialOptions{HTTPClient: client})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = c.CloseNow() })
	return func(text string) (string, error) {
		if err := c.Write(f.Context(), websocket.MessageText, []byte(text)); err != nil {
			return "", err
		}
		_, b, err := c.Read(f.Context())
		return string(b), err
	}
}

// askHTTP3 sends requests over a connection, whichever side has dialed it.
func (f *fleet) askHTTP3(from, to *Conn) func(string) (string, error) {
	server := &http3.Server{Handler: PeerHandler(f.echo(to.RemoteID()))}
	go func() { _ = server.ServeQUICConn(to.Conn) }()
	client := new(http3.Transport).NewClientConn(from.Conn)
	return func(text string) (string, error) { return post(client, "https://peer.invalid/echo", text) }
}

// TestCancelledRequest checks that the handler of a request that the client cancels ends.
func TestCancelledRequest(t *testing.T) {
	runLab(t, func(l *lab) {
		client, server := l.host(nil), l.host(nil)
		began, ended := make(chan struct{}), make(chan struct{})
		s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(began)
			<-r.Context().Done()
			close(ended)
		})}
		go func() { _ = s.Serve(server.Listener()) }()
		defer s.Close()
		ctx, cancel := context.WithCancel(l.Context())
		go func() {
			<-began
			cancel()
		}()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.url("/"), nil)
		if err != nil {
			l.Fatal(err)
		}
		transport := &http.Transport{DialContext: client.DialContext}
		if _, err := transport.RoundTrip(req); !errors.Is(err, context.Canceled) {
			l.Errorf("error %v", err)
		}
		<-ended
	})
}
