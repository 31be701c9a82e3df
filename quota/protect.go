package quota

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/quic-go/quic-go"
)

// defaultIDLen is that of a quic.Transport.
const defaultIDLen = 4

// Protect puts the controller into a transport, before its first use: the packet
// filter below it, [Controller.WantsRetry] as its VerifySourceAddress, and what
// admits connections, once each, as its ConnContext. Hooks that it has are kept: its
// VerifySourceAddress may ask for a Retry as well, and its ConnContext is asked
// about whoever is admitted.
//
// Listen with [Controller.Listener], too: else a connection counts as half open
// until [Config.HandshakeTimeout] has passed, and nothing ends it if it turns out
// then that there is no room for it, or if its address is denied.
//
// Returns an error for a transport without a Conn, one that is not of UDP, and one
// that this controller protects already.
func (c *Controller) Protect(t *quic.Transport) error {
	if t.Conn == nil {
		return errors.New("quota: protect transport: it has no Conn")
	}
	if _, ok := t.Conn.LocalAddr().(*net.UDPAddr); !ok {
		return fmt.Errorf("quota: protect transport: %v is no UDP address", t.Conn.LocalAddr())
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
	verify, connContext := t.VerifySourceAddress, t.ConnContext
	t.VerifySourceAddress = func(addr net.Addr) bool {
		return c.WantsRetry(addrPort(addr)) || verify != nil && verify(addr)
	}
	t.ConnContext = func(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
		return c.connContext(ctx, info, connContext)
	}
	return nil
}

type slotKey struct{}

// SlotOf returns the slot of a connection, by its context or one that comes from
// it, as an HTTP/3 request's does; or nil.
func SlotOf(ctx context.Context) *Slot {
	slot, _ := ctx.Value(slotKey{}).(*Slot)
	return slot
}

// connContext is the ConnContext of a transport that had another one, or none.
func (c *Controller) connContext(ctx context.Context, info *quic.ClientInfo, next func(context.Context, *quic.ClientInfo) (context.Context, error)) (context.Context, error) {
	slot, err := c.admit(addrPort(info.RemoteAddr), info.AddrVerified, true)
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
	// quic-go cancels ctx whatever the hook makes of it.
	context.AfterFunc(ctx, slot.Release)
	return out, nil
}
