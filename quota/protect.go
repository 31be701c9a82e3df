package quota

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/amplify"
)

const (
	// defaultIDLen is the length of the connection IDs of a quic.Transport.
	defaultIDLen = 4
	// noTokens is a MaxTokenAge at which no NEW_TOKEN token is valid.
	noTokens = -100 * 365 * 24 * time.Hour
)

// Protect puts the controller into a transport, before the transport is used for the
// first time. It puts the packet filter below the transport, adds
// [Controller.WantsRetry] to its VerifySourceAddress, and admits each connection in its
// ConnContext. Hooks that the transport has are kept: VerifySourceAddress may still ask
// for a Retry, and ConnContext is called for connections that are admitted.
//
// Tokens of NEW_TOKEN frames (RFC 9000 §8.1.3) are not accepted any more, whatever the
// transport's MaxTokenAge is, since a client that has had an address once could use
// them again and again. The token of a Retry is valid for the time of a handshake, and
// gives a place among the half-open attempts only.
//
// Use [Controller.Listener] as well. Without it, a connection counts as half open until
// [Config].HandshakeTimeout has passed, and nothing closes it if there is no room for it
// then or when its address is denied. Migration is then only guessed from the packets
// that are sent.
//
// Protect returns an error if the transport has no Conn, has one that is not of UDP, is
// protected by this controller already, or is in use, since it would not notice the
// change.
func (c *Controller) Protect(t *quic.Transport) error {
	if t.Conn == nil {
		return errors.New("quota: protect transport: it has no Conn")
	}
	if _, ok := t.Conn.LocalAddr().(*net.UDPAddr); !ok {
		return fmt.Errorf("quota: protect transport: %v is not a UDP address", t.Conn.LocalAddr())
	}
	if inUse(t) {
		return errors.New("quota: protect transport: it is in use already")
	}
	if conn, ok := t.Conn.(interface{ controller() *Controller }); ok && conn.controller() == c {
		return errors.New("quota: protect transport: it is protected already")
	}
	idLen := defaultIDLen
	switch {
	case t.ConnectionIDGenerator != nil:
		idLen = t.ConnectionIDGenerator.ConnectionIDLen()
	case t.ConnectionIDLength != 0:
		idLen = t.ConnectionIDLength
	}
	t.Conn = c.PacketConn(t.Conn, idLen)
	t.MaxTokenAge = noTokens
	limit := t.Conn.(interface{ amplification() *amplify.Limit }).amplification()
	h := &hooks{c: c, limit: limit, verifySource: t.VerifySourceAddress, connContext: t.ConnContext}
	t.VerifySourceAddress, t.ConnContext = h.VerifySourceAddress, h.ConnContext
	return nil
}

// inUse reports whether a transport has been used. From then on it ignores changes of
// its Conn and its hooks. No exported field tells, so inUse looks at an unexported one.
func inUse(t *quic.Transport) bool {
	conn := reflect.ValueOf(t).Elem().FieldByName("conn")
	return conn.IsValid() && conn.Kind() == reflect.Interface && !conn.IsNil()
}

type slotKey struct{}

// SlotOf returns the slot of a connection on a protected transport, or nil. ctx is the
// context of the connection, or one that is derived from it, such as that of an HTTP/3
// request.
func SlotOf(ctx context.Context) *Slot {
	slot, _ := ctx.Value(slotKey{}).(*Slot)
	return slot
}

// hooks are the hooks of a protected transport.
type hooks struct {
	c            *Controller
	limit        *amplify.Limit // nil: the socket is shared, and its owner has the limit
	verifySource func(net.Addr) bool
	connContext  func(context.Context, *quic.ClientInfo) (context.Context, error)
}

// VerifySourceAddress is the hook of that name of [quic.Transport].
func (h *hooks) VerifySourceAddress(addr net.Addr) bool {
	return h.c.WantsRetry(addrPort(addr)) || h.verifySource != nil && h.verifySource(addr)
}

// ConnContext is the hook of that name of [quic.Transport].
func (h *hooks) ConnContext(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	remote, st := addrPort(info.RemoteAddr), stageUnvalidated
	if info.AddrVerified {
		st = stageRetried
	}
	slot, err := h.c.admission.admit(remote, st, true)
	if err != nil {
		return nil, err
	}
	out := context.WithValue(ctx, slotKey{}, slot)
	if h.connContext != nil {
		if out, err = h.connContext(out, info); err != nil {
			slot.Release()
			return nil, err
		}
	}
	if h.limit != nil {
		slot.peer = h.limit.Enter(remote)
	}
	// quic-go cancels ctx, whatever context the hook returns.
	context.AfterFunc(ctx, func() {
		slot.Release()
		slot.peer.Leave()
	})
	return out, nil
}
