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
	// defaultIDLen is that of a quic.Transport.
	defaultIDLen = 4
	// noTokens makes those of NEW_TOKEN frames good for nothing: none is as young.
	noTokens = -100 * 365 * 24 * time.Hour
)

// Protect puts the controller into a transport, before its first use: the packet
// filter below it, [Controller.WantsRetry] as its VerifySourceAddress, and what
// admits connections, once each, as its ConnContext. Hooks that it has are kept: its
// VerifySourceAddress may ask for a Retry as well, and its ConnContext is asked
// about whoever is admitted.
//
// The tokens of NEW_TOKEN frames (RFC 9000 §8.1.3) are good for nothing then,
// whatever the transport's MaxTokenAge: somebody who has had an address once could
// show one as often as it likes. Those of a Retry are good for as long as a handshake
// may take, and only for a place among the half-open ones.
//
// Listen with [Controller.Listener], too: else a connection counts as half open
// until [Config.HandshakeTimeout] has passed, and nothing ends it if it turns out
// then that there is no room for it, or if its address is denied; and that it has
// moved is only guessed from what QUIC sends.
//
// Returns an error for a transport without a Conn, one that is not of UDP, one that
// this controller protects already, and one that is in use: it would not notice.
func (c *Controller) Protect(t *quic.Transport) error {
	if t.Conn == nil {
		return errors.New("quota: protect transport: it has no Conn")
	}
	if _, ok := t.Conn.LocalAddr().(*net.UDPAddr); !ok {
		return fmt.Errorf("quota: protect transport: %v is no UDP address", t.Conn.LocalAddr())
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
	verify, connContext := t.VerifySourceAddress, t.ConnContext
	t.VerifySourceAddress = func(addr net.Addr) bool {
		return c.WantsRetry(addrPort(addr)) || verify != nil && verify(addr)
	}
	t.ConnContext = func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		return c.connContext(ctx, info, limit, connContext)
	}
	return nil
}

// inUse says whether a transport has been used: it does not ask for its Conn and its
// hooks again then. It does not tell itself, but for a field that it fills in.
func inUse(t *quic.Transport) bool {
	conn := reflect.ValueOf(t).Elem().FieldByName("conn")
	return conn.IsValid() && conn.Kind() == reflect.Interface && !conn.IsNil()
}

type slotKey struct{}

// SlotOf returns the slot of a connection, by its context or one that comes from
// it, as an HTTP/3 request's does; or nil.
func SlotOf(ctx context.Context) *Slot {
	slot, _ := ctx.Value(slotKey{}).(*Slot)
	return slot
}

// connContext is the ConnContext of a transport that had another one, or none. limit
// may be nil.
func (c *Controller) connContext(ctx context.Context, info *quic.ClientInfo, limit *amplify.Limit, next func(context.Context, *quic.ClientInfo) (context.Context, error)) (context.Context, error) {
	remote, st := addrPort(info.RemoteAddr), stageFresh
	if info.AddrVerified {
		st = stageProven
	}
	slot, err := c.admit(remote, st, true)
	if err != nil {
		return nil, err
	}
	own := context.WithValue(ctx, slotKey{}, slot)
	out := own
	if next != nil {
		if out, err = next(own, info); err != nil {
			slot.Release()
			return nil, err
		}
	}
	if limit != nil {
		slot.peer = limit.Enter(remote)
	}
	// quic-go cancels ctx whatever the hook makes of it.
	context.AfterFunc(ctx, func() {
		slot.Release()
		slot.peer.Leave()
	})
	return out, nil
}
