package p2p

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
)

// line is one control connection with a relay: HTTP/3 over QUIC.
type line struct {
	conn *quic.Conn
	http *http3.ClientConn

	mu    sync.Mutex     // guards the following
	seen  netip.AddrPort // our latest address, as the relay sees it
	sight uint64         // its number
}

// dialLine connects to the relay of h at one of its addresses.
func dialLine(ctx context.Context, h *home, addr netip.AddrPort) (*line, error) {
	var verdict verdict
	conf := h.relay.tlsConfig(h.endpoint.identity, &verdict)
	conn, err := h.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), conf, lineConfig(h.endpoint.conf))
	var untrusted *tls.CertificateVerificationError
	switch {
	case verdict.get() != nil:
		return nil, fmt.Errorf("%w: %s", verdict.get(), h.relay.Addr)
	case errors.As(err, &untrusted):
		return nil, fmt.Errorf("%w: %s has no pin, and its certificate is not good without: %w", ErrRelayMismatch, h.relay.Addr, untrusted.Err)
	case overQuota(err):
		return nil, fmt.Errorf("%w: %s: %w", errOverQuota, h.relay.Addr, err)
	case err != nil:
		return nil, h.unreachable(ctx, addr, err)
	}
	return &line{conn: conn, http: (&http3.Transport{}).NewClientConn(conn)}, nil
}

// tlsConfig verifies the relay by its pin, or by its name. It shows our
// certificate, so that we may take the offers that are addressed to us.
func (r Relay) tlsConfig(identity *Identity, verdict *verdict) *tls.Config {
	conf := &tls.Config{}
	if r.TLS != nil {
		conf = r.TLS.Clone()
	}
	conf.MinVersion = tls.VersionTLS13
	conf.NextProtos = []string{http3.NextProtoH3}
	conf.Certificates = []tls.Certificate{identity.cert}
	if conf.ServerName == "" {
		conf.ServerName = r.hostname()
	}
	if r.Pin.IsZero() {
		return conf
	}
	conf.InsecureSkipVerify = true // the pin says more than a name
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		id, err := pki.PeerKeyID(state)
		if err != nil || PeerID(id) != r.Pin {
			return verdict.is(ErrRelayMismatch)
		}
		return nil
	}
	return conf
}

// lineConfig keeps the NAT's mapping to the relay open, which packets of the
// peers need as well. Its packets never grow: quic-go does not notice a path that
// no more carries what it has carried, and messages are small.
func lineConfig(conf *Config) *quic.Config {
	return &quic.Config{
		InitialPacketSize:       packetSize,
		DisablePathMTUDiscovery: true,
		HandshakeIdleTimeout:    connectTimeout,
		MaxIdleTimeout:          time.Minute,
		KeepAlivePeriod:         max(conf.KeepAlive, 0),
	}
}

func (l *line) dead() <-chan struct{} { return l.conn.Context().Done() }

func (l *line) close() {
	_ = l.conn.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func (l *line) register(ctx context.Context, session control.SessionID, body *control.Register, token string) (*control.Registered, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	var reply control.Registered
	err = l.do(ctx, http.MethodPost, fmt.Sprintf(control.LegsPath, session), control.Bearer+token, b, func(r io.Reader) error {
		return control.Decode(r, &reply)
	})
	if err == nil {
		l.observed(reply.Observed, reply.Sight)
	}
	return &reply, err
}

// observed takes note of our address, as the relay sees it, if it is the latest: an
// answer to a request, asked before we moved, may come after the event.
func (l *line) observed(addr netip.AddrPort, sight uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sight >= l.sight {
		l.seen, l.sight = addr, sight
	}
}

// address returns the latest.
func (l *line) address() netip.AddrPort {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seen
}

func (l *line) end(ctx context.Context, session control.SessionID, role control.Role, key cid.Key) error {
	text, err := key.MarshalText()
	if err != nil {
		return err
	}
	return l.do(ctx, http.MethodDelete, fmt.Sprintf(control.LegPath, session, role), control.Leg+string(text), nil, nil)
}

// putOffer leaves the offer of a session under a name.
func (l *line) putOffer(ctx context.Context, name, token string, session control.SessionID, offer []byte) error {
	path := fmt.Sprintf(control.OffersPath+"?%s=%s", name, control.SessionParameter, session)
	return l.do(ctx, http.MethodPut, path, control.Bearer+token, offer, nil)
}

// taken is an offer from the mailbox.
type taken struct {
	line   *line
	text   string
	number uint64 // what it is acknowledged by; zero: the relay does not say
	sender string // whose offers these are; "" if the relay does not say
}

// takeOffer waits for an offer. It returns nil if none came in time. A token is not
// needed, but the relay has more room for those who show one.
func (l *line) takeOffer(ctx context.Context, name, token string) (*taken, error) {
	authorization := ""
	if token != "" {
		authorization = control.Bearer + token
	}
	path := fmt.Sprintf(control.OffersPath+"?wait=%d&%s=%d", name, control.MaxWait/time.Second, control.AgainParameter, showAgain/time.Second)
	var t *taken
	err := l.request(ctx, http.MethodGet, path, authorization, nil, func(resp *http.Response) error {
		text, err := io.ReadAll(io.LimitReader(resp.Body, maxOfferText+1))
		if err != nil {
			return err
		}
		number, _ := strconv.ParseUint(resp.Header.Get(control.OfferField), 10, 64)
		t = &taken{line: l, text: string(text), number: number, sender: resp.Header.Get(control.SenderField)}
		return nil
	})
	return t, err
}

// acknowledge lets the relay forget an offer.
func (l *line) acknowledge(ctx context.Context, name string, number uint64) error {
	return l.do(ctx, http.MethodDelete, fmt.Sprintf(control.OfferPath, name, number), "", nil, nil)
}

// ping asks for nothing, so that the relay sees our address.
func (l *line) ping(ctx context.Context) error {
	err := l.do(ctx, http.MethodHead, "/", "", nil, nil)
	if errors.Is(err, ErrRelayRefused) {
		return nil // it has answered
	}
	return err
}

// events calls f for what the relay tells, until the connection ends.
func (l *line) events(f func(control.Event)) {
	_ = l.do(l.conn.Context(), http.MethodGet, control.EventsPath, "", nil, func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, control.MaxBody)
		for lines.Scan() {
			var e control.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			if e.Type == control.EventObserved {
				l.observed(e.Observed, e.Sight)
			}
			f(e)
		}
		return lines.Err()
	})
}

// do makes a request and hands the body of a good answer to read.
func (l *line) do(ctx context.Context, method, path, authorization string, body []byte, read func(io.Reader) error) error {
	return l.request(ctx, method, path, authorization, body, func(resp *http.Response) error {
		if read == nil {
			return nil
		}
		return read(resp.Body)
	})
}

// request makes a request and hands a good answer to read, if it has a body.
func (l *line) request(ctx context.Context, method, path, authorization string, body []byte, read func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "https://relay"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := l.http.RoundTrip(req)
	switch {
	case err != nil && overQuota(context.Cause(l.conn.Context())):
		return fmt.Errorf("%w: %w", errOverQuota, err)
	case err != nil:
		return fmt.Errorf("%w: %w", ErrRelayUnreachable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return refusal(resp)
	}
	if resp.StatusCode == http.StatusNoContent {
		return nil
	}
	return read(resp)
}

// refusal is the error that an answer stands for.
func refusal(resp *http.Response) error {
	refused := &refusedError{}
	if err := control.Decode(resp.Body, &refused.problem); err != nil {
		refused.problem.Message = resp.Status
	}
	return refused
}

// errOverQuota: the relay has no room for a connection of ours.
var errOverQuota = &refusedError{control.Problem{Code: control.CodeLimit, Message: "too many connections"}}

// overQuota says whether the relay has ended a connection, or not begun one, because
// there are too many: of this address, or of all.
func overQuota(err error) bool {
	var transport *quic.TransportError
	var application *quic.ApplicationError
	switch {
	case errors.As(err, &transport):
		return transport.Remote && transport.ErrorCode == quic.ConnectionRefused
	case errors.As(err, &application):
		return application.Remote && application.ErrorCode == quic.ApplicationErrorCode(http3.ErrCodeExcessiveLoad)
	}
	return false
}
