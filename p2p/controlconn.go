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
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
)

// controlConn is a control connection: HTTP/3 between an endpoint and a relay.
type controlConn struct {
	quic   *quic.Conn
	http   http.RoundTripper
	tunnel *relayTunnel // nil: over UDP
	// isDraining says that the relay is about to stop.
	isDraining atomic.Bool

	feed *offerFeed // the request for offers; used only by the goroutine that collects from the relay

	admitted atomic.Bool // the relay has registered a leg on this connection
	leaving  atomic.Bool // a registration with an offer is under way, or was

	mu   sync.Mutex     // guards the following
	seen netip.AddrPort // this host's latest address, as the relay sees it
	seq  uint64         // the number that the relay has given it
}

// dialControl connects to a client's relay at one of its addresses.
func dialControl(ctx context.Context, c *relayClient, addr netip.AddrPort) (*controlConn, error) {
	var refusal tlsRefusal
	conf := c.endpoint.conf.relayTLS(c.relay, &refusal)
	conn, err := c.transport.Dial(ctx, net.UDPAddrFromAddrPort(addr), conf, controlConfig(c.endpoint.conf))
	var untrusted *tls.CertificateVerificationError
	switch {
	case refusal.get() != nil:
		return nil, refusal.get()
	case errors.As(err, &untrusted):
		return nil, c.relay.untrusted(untrusted)
	case overQuota(err):
		return nil, fmt.Errorf("%w: %s: %w", errOverQuota, c.relay.Addr, err)
	case err != nil:
		return nil, c.unreachable(ctx, addr, err)
	}
	transport := &http3.Transport{MaxResponseHeaderBytes: maxAnswerHeader}
	return &controlConn{quic: conn, http: transport.NewClientConn(conn)}, nil
}

// maxAnswerHeader bounds the header of an answer of a relay, in bytes.
const maxAnswerHeader = 8 << 10

// controlConfig is the QUIC configuration of control connections. Their keepalives keep
// the NAT's mapping, which packets of the peers need as well. Their packets stay at 1200
// bytes: messages are small, and quic-go would not notice when a path no longer carries
// larger ones. The windows have room for a few offers that are not read yet; the relay keeps
// the others, and is fair to their senders.
func controlConfig(conf *Config) *quic.Config {
	return &quic.Config{
		InitialPacketSize:       packetSize,
		DisablePathMTUDiscovery: true,
		HandshakeIdleTimeout:    connectTimeout,
		MaxIdleTimeout:          time.Minute,
		KeepAlivePeriod:         max(conf.KeepAlive, 0),

		InitialStreamReceiveWindow:     2 * maxOfferText,
		MaxStreamReceiveWindow:         2 * maxOfferText,
		InitialConnectionReceiveWindow: 8 * maxOfferText,
		MaxConnectionReceiveWindow:     8 * maxOfferText,
	}
}

// dead is closed when the connection has ended.
func (c *controlConn) dead() <-chan struct{} { return c.quic.Context().Done() }

func (c *controlConn) close() {
	_ = c.quic.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "")
}

func (c *controlConn) register(ctx context.Context, session control.SessionID, body *control.Register, token string) (*control.Registered, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	var reply control.Registered
	err = c.do(ctx, http.MethodPost, fmt.Sprintf(control.LegsPath, session), control.Bearer+token, b, func(r io.Reader) error {
		return control.Decode(r, &reply)
	})
	if err == nil {
		c.admitted.Store(true)
		c.observed(reply.Observed, reply.ObservedSeq)
	}
	return &reply, err
}

// mayLeave says whether a registration may have an offer with it. A relay reads few
// requests at once of a client that it does not know yet, and the data of those that wait
// fills the connection's flow control. So only one of the first registrations may.
func (c *controlConn) mayLeave() bool {
	return c.admitted.Load() || c.leaving.CompareAndSwap(false, true)
}

// observed takes note of this host's address, as the relay sees it, if it is the latest:
// an event with a newer address may overtake the answer to a request.
func (c *controlConn) observed(addr netip.AddrPort, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seq >= c.seq {
		c.seen, c.seq = addr, seq
	}
}

// address is this host's latest address, as the relay sees it.
func (c *controlConn) address() netip.AddrPort {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen
}

func (c *controlConn) endLeg(ctx context.Context, session control.SessionID, role control.Role, key cid.Key) error {
	text, err := key.MarshalText()
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodDelete, fmt.Sprintf(control.LegPath, session, role), control.Leg+string(text), nil, nil)
}

// putOffer leaves the offer of a session under a name.
func (c *controlConn) putOffer(ctx context.Context, name, token string, session control.SessionID, offer []byte) error {
	path := fmt.Sprintf(control.OffersPath+"?%s=%s", name, control.SessionParameter, session)
	return c.do(ctx, http.MethodPut, path, control.Bearer+token, offer, nil)
}

// acknowledge has the relay delete an offer.
func (c *controlConn) acknowledge(ctx context.Context, name string, number uint64) error {
	return c.do(ctx, http.MethodDelete, fmt.Sprintf(control.OfferPath, name, number), "", nil, nil)
}

// ping makes an empty request, from which the relay learns this host's address.
func (c *controlConn) ping(ctx context.Context) error {
	err := c.do(ctx, http.MethodHead, "/", "", nil, nil)
	if errors.Is(err, ErrRelayRefused) {
		return nil // the relay has answered
	}
	return err
}

// members asks the relay for the relays that it knows.
func (c *controlConn) members(ctx context.Context) ([]control.Member, error) {
	var all control.Relays
	err := c.do(ctx, http.MethodGet, control.RelaysPath, "", nil, func(r io.Reader) error {
		return control.Decode(r, &all)
	})
	return all.Relays[:min(len(all.Relays), maxRelays)], err
}

// events calls f for each event of the relay's, until the connection ends.
func (c *controlConn) events(f func(control.Event)) {
	_ = c.do(c.quic.Context(), http.MethodGet, control.EventsPath, "", nil, func(r io.Reader) error {
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, control.MaxBody)
		for lines.Scan() {
			var e control.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				return err
			}
			if e.Type == control.EventObserved {
				c.observed(e.Observed, e.ObservedSeq)
			}
			f(e)
		}
		return lines.Err()
	})
}

// do makes a request, and calls read with the body if the relay accepts it. read may be
// nil.
func (c *controlConn) do(ctx context.Context, method, path, authorization string, body []byte, read func(io.Reader) error) error {
	return c.request(ctx, method, path, authorization, body, func(resp *http.Response) error {
		if read == nil {
			return nil
		}
		return read(resp.Body)
	})
}

// request makes a request, and calls read if the relay accepts it and sends a body.
func (c *controlConn) request(ctx context.Context, method, path, authorization string, body []byte, read func(*http.Response) error) error {
	resp, err := c.open(ctx, method, path, authorization, body)
	if err != nil || resp == nil {
		return err
	}
	defer resp.Body.Close()
	return read(resp)
}

// open makes a request, and returns the answer if the relay accepts the request and sends a
// body, or nil if there is no body. The caller closes the body.
func (c *controlConn) open(ctx context.Context, method, path, authorization string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "https://relay"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := c.http.RoundTrip(req)
	switch {
	case err != nil && overQuota(context.Cause(c.quic.Context())):
		return nil, fmt.Errorf("%w: %w", errOverQuota, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrRelayUnreachable, err)
	case resp.StatusCode/100 != 2:
		defer resp.Body.Close()
		return nil, refusalError(resp)
	case resp.StatusCode == http.StatusNoContent:
		return nil, resp.Body.Close()
	}
	return resp, nil
}

// refusalError is the error that an answer stands for.
func refusalError(resp *http.Response) error {
	refused := &refusedError{}
	if err := control.Decode(resp.Body, &refused.problem); err != nil {
		refused.problem.Message = resp.Status
	}
	return refused
}

// errOverQuota: the relay has no room for a control connection.
var errOverQuota = &refusedError{control.Problem{Code: control.CodeLimit, Message: "too many connections"}}

// overQuota says whether the relay has refused or closed a connection because there are
// too many, of this address or in all.
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
