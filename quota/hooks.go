package quota

import (
	"context"
	"net"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/internal/amplify"
)

type slotKey struct{}

// SlotOf returns the slot of a connection that a [Transport] has admitted, or nil. ctx is the
// context of the connection, or one that is derived from it, such as that of an HTTP/3
// request.
func SlotOf(ctx context.Context) *Slot {
	slot, _ := ctx.Value(slotKey{}).(*Slot)
	return slot
}

// withSlot returns a context that has a slot.
func withSlot(ctx context.Context, slot *Slot) context.Context {
	return context.WithValue(ctx, slotKey{}, slot)
}

// hooks are the hooks of a transport under a quota.
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
	out, err := h.context(ctx, slot, info)
	if err != nil {
		slot.Release()
		return nil, err
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

// context returns the context of a connection: that of the user's hook, if there is one,
// which need not be derived from ctx. In either case it has the slot, without which the
// connection would be held to no limit.
func (h *hooks) context(ctx context.Context, slot *Slot, info *quic.ClientInfo) (context.Context, error) {
	ctx = withSlot(ctx, slot)
	if h.connContext == nil {
		return ctx, nil
	}
	out, err := h.connContext(ctx, info)
	if err != nil || out == nil { // for nil, quic-go panics with a message of its own
		return out, err
	}
	if SlotOf(out) != slot {
		out = withSlot(out, slot)
	}
	return out, nil
}
