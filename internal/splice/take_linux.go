package splice

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// quietTimeout is how long the ends have to become quiet.
	quietTimeout = 2 * time.Second
	// settleTime is how long nothing must be on its way between the program and our sockets
	// before the sockets are frozen: a packet may be on another CPU.
	settleTime = 30 * time.Millisecond
	// pendingTimeout is how long an end has to acknowledge the last bytes of our sockets.
	pendingTimeout = 10 * time.Second
)

// taking is a takeover.
type taking struct {
	pair     *Pair
	injected uint64
	offsets  offsets
	fresh    [2]uint64 // payload that the program had counted when it began to forward
	began    time.Time
	settled  time.Time // since when nothing is on its way; the zero time: something is
	canceled error
	result   chan error // has room for the only result
}

// Take moves the relay of two connected sockets into the kernel: client is the one that was
// accepted, and upstream the one that was dialed. injected is the number of bytes that the caller
// has sent to the upstream before those of the client, such as a PROXY protocol header. It does not
// count for connections that [Pair.Return] has returned.
//
// The caller goes on copying between the sockets while Take runs. Take waits up to 2 s until no
// byte is on its way. When it returns a pair, the kernel relays, and the caller's goroutines stay
// blocked in the sockets. They return with an error, which means nothing, when the pair has ended
// or comes back: [Pair.Done] and [Pair.End] say what has happened. That may be before Take returns.
// The pair closes the sockets. Keepalive and TCP_USER_TIMEOUT have no effect meanwhile.
//
// The error is a [*Refusal] if the connections stay in userspace, as they were. It wraps the error
// of ctx if ctx ends first. If Reason is LostPending, both connections were reset. After Close it is
// ErrClosed.
func (p *Program) Take(ctx context.Context, client, upstream *net.TCPConn, injected uint64) (*Pair, error) {
	pair, err := p.take(ctx, client, upstream, injected)
	var refusal *Refusal
	if errors.As(err, &refusal) {
		p.keeper.count(refusal.Reason)
	}
	if err != nil {
		return nil, err
	}
	return pair, nil
}

func (p *Program) take(ctx context.Context, client, upstream *net.TCPConn, injected uint64) (*Pair, error) {
	pair := newPair(p.keeper, [2]tuple{tupleOf(client), tupleOf(upstream)})
	pair.conns = [2]*net.TCPConn{client, upstream}
	if refusal := checkAddresses(pair.ends); refusal != nil {
		return nil, refusal
	}
	for _, c := range pair.conns {
		if refusal := checkProtocol(c); refusal != nil {
			return nil, refusal
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, refuse(RefusedCanceled, err)
	}
	t := &taking{pair: pair, injected: injected, result: make(chan error, 1)}
	if !p.keeper.do(func() { p.keeper.take(t) }) {
		return nil, ErrClosed
	}
	if err := p.keeper.await(ctx, t); err != nil {
		return nil, err
	}
	return pair, nil
}

// await waits for the end of a takeover, which ctx ends early.
func (k *keeper) await(ctx context.Context, t *taking) error {
	select {
	case err := <-t.result:
		return err
	case <-ctx.Done():
		k.do(func() { t.canceled = ctx.Err() })
	case <-k.done:
	}
	select {
	case err := <-t.result:
		return err
	case <-k.done:
	}
	select {
	case err := <-t.result: // the takeover ended before the program was closed
		return err
	default: // the connections were reset
		return ErrClosed
	}
}

// take begins a takeover. It changes nothing if it refuses.
func (k *keeper) take(t *taking) {
	if err := k.prepare(t); err != nil {
		t.result <- err
		return
	}
	k.begin(func(now time.Time) time.Duration { return k.quieten(t, now) })
}

// prepare checks the conditions, and adds the pair in state QUIET.
func (k *keeper) prepare(t *taking) error {
	p := t.pair
	if k.closing {
		return ErrClosed
	}
	views, err := k.peeker.peek(p.ends[fromClient], p.ends[fromUpstream])
	if err != nil {
		return err
	}
	if refusal := checkViews(&views, k.attached); refusal != nil {
		return refusal
	}
	var hops [2]hop
	for i := range p.notes {
		if err := control(p.conns[i], func(fd int) (err error) {
			p.notes[i].Settings, err = readSettings(fd, p.ends[i].local.Addr())
			return err
		}); err != nil {
			return refuse(RefusedSocket, err)
		}
		if err := p.tryReserve(i); err != nil {
			return refuse(RefusedSocket, err)
		}
		p.notes[i].negotiated(&views[i])
		if hops[i], err = findHop(p.ends[i], k.attached[views[i].OutIfindex], p.notes[i].Settings.mark()); err != nil {
			return refuse(RefusedNeighbor, err)
		}
	}
	client, upstream := views[fromClient].position(), views[fromUpstream].position()
	t.offsets = newOffsets(&client, &upstream, t.injected, views[fromClient].Restored != 0)
	if err := p.eachSocket(silence); err != nil {
		return refuse(RefusedSocket, errors.Join(err, p.restoreProbes()))
	}
	if err := k.add(p, func(entry *splicePair) { fill(entry, &views, hops, t.offsets) }); err != nil {
		return refuse(RefusedFull, errors.Join(err, p.restoreProbes()))
	}
	t.began = time.Now()
	return nil
}

// tryReserve returns an error if the process could not make a socket that takes the place of one
// of ours: to bind a port below 1024 it needs CAP_NET_BIND_SERVICE.
func (p *Pair) tryReserve(i int) error {
	fd, err := (&leg{tuple: p.ends[i], settings: p.notes[i].Settings}).reserve()
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// fill sets the entry of a pair from what the kernel knows of its sockets.
func fill(entry *splicePair, views *[2]peekView, hops [2]hop, o offsets) {
	for i, other := range []direction{fromUpstream, fromClient} {
		h, from, to := &entry.Halves[i], &views[i], &views[other]
		h.Ifindex, h.Macs = hops[other].ifindex, hops[other].macs
		h.Mtu = uint16(min(to.Mtu, 1<<16-1))
		h.InScale, h.OwnScale, h.OutScale = from.SndScale, from.RcvScale, to.RcvScale
		h.MaxEnd, h.MaxAck, h.MaxEdge = from.RcvNxt, from.SndUna, from.SndUna+from.SndWnd
		h.Window, h.LastTs = uint16(min(from.SndWnd>>from.SndScale, 1<<16-1)), from.TsRecent
		if (from.Ecn^to.Ecn)&1 != 0 {
			h.Flags |= halfNoECN
		}
	}
	entry.Halves[fromClient].SeqAdd, entry.Halves[fromUpstream].SeqAdd = o.toUpstream, o.toClient
}

// quieten waits in QUIET until no byte is on its way, and goes on to PENDING.
func (k *keeper) quieten(t *taking, now time.Time) time.Duration {
	p := t.pair
	if p.over {
		t.result <- ErrClosed
		return 0
	}
	views, refusal := k.stillOpen(t)
	switch {
	case refusal == nil && k.quiet(t, &views):
		if err := k.startPending(t, &views); err != nil {
			refusal = refuse(RefusedSocket, err)
			break
		}
		k.begin(func(now time.Time) time.Duration { return k.settle(t, now) })
		return 0
	case refusal == nil && p.leaving:
		refusal = refuse(RefusedInterface, nil)
	case refusal == nil && t.canceled != nil:
		refusal = refuse(RefusedCanceled, t.canceled)
	case refusal == nil && now.Sub(t.began) > quietTimeout:
		refusal = refuse(RefusedBusy, nil)
	}
	if refusal == nil {
		return pause(now.Sub(t.began))
	}
	k.remove(p)
	_ = p.restoreProbes() // fails if a socket was closed
	t.result <- refusal
	return 0
}

// stillOpen reads both sockets, and refuses them if an end has begun to close.
func (k *keeper) stillOpen(t *taking) (views [2]peekView, refusal *Refusal) {
	views, err := k.peeker.peek(t.pair.ends[fromClient], t.pair.ends[fromUpstream])
	if err != nil {
		return views, refuse(RefusedSocket, err)
	}
	for i := range views {
		if views[i].Found != 0 {
			t.pair.entry.catchUp(direction(i), &views[i])
		}
	}
	seen := t.pair.entry.seen()
	switch {
	case seen&(seenFIN|seenRST) != 0, views[0].Found == 0, views[1].Found == 0,
		views[0].State != established, views[1].State != established:
		return views, refuse(RefusedState, nil)
	case seen&seenOptions != 0:
		return views, refuse(RefusedOptions, nil)
	}
	return views, nil
}

// quiet says whether no byte is on its way, neither between the sockets and the ends nor between
// the program and the sockets.
func (k *keeper) quiet(t *taking, views *[2]peekView) bool {
	if !k.drained(t, views) {
		return false
	}
	for i := range views {
		if after(t.pair.entry.Halves[i].maxEnd(), views[i].RcvNxt) {
			return false // between the program and the socket
		}
	}
	return true
}

// drained says whether no byte is on its way between the sockets and the ends.
func (k *keeper) drained(t *taking, views *[2]peekView) bool {
	client, upstream := views[fromClient].position(), views[fromUpstream].position()
	return drained(&client, &upstream, t.offsets.toUpstream) && drained(&upstream, &client, t.offsets.toClient)
}

// startPending has the program forward packets, and the ends send again. The first timestamps that it forwards continue
// those that our sockets have sent until now.
func (k *keeper) startPending(t *taking, views *[2]peekView) error {
	p := t.pair
	if p.notes[fromClient].Timestamps != 0 {
		var now [2]uint32
		for i, c := range p.conns {
			if err := control(c, func(fd int) (err error) { now[i], err = clock(fd); return err }); err != nil {
				return err
			}
		}
		t.offsets.setTimestamps(now[fromClient], views[fromClient].TsRecent, now[fromUpstream], views[fromUpstream].TsRecent)
		atomic.StoreUint32(&p.entry.Halves[fromClient].TsAdd, t.offsets.tsToUpstream)
		atomic.StoreUint32(&p.entry.Halves[fromUpstream].TsAdd, t.offsets.tsToClient)
	}
	for i := range t.fresh {
		h := p.entry.Halves[i].traffic()
		t.fresh[i] = h.Bytes - h.Retransmitted
	}
	p.entry.setState(pending)
	// The windows that the ends have got from our sockets are closed. The answers, which are forwarded,
	// open them at once. Without one an end asks for a window when its timer has run out.
	_ = p.eachSocket(askWindow)
	return nil
}

// settle waits in PENDING until the last bytes of our sockets are acknowledged, and goes on to
// ACTIVE.
func (k *keeper) settle(t *taking, now time.Time) time.Duration {
	p := t.pair
	if p.over {
		t.result <- ErrClosed
		return 0
	}
	views, err := k.peeker.peek(p.ends[fromClient], p.ends[fromUpstream])
	gone := err == nil && (views[0].Found == 0 || views[1].Found == 0)
	switch {
	case p.entry.seen()&seenRST != 0:
		t.settled = now.Add(-settleTime)
	case err != nil || !gone && !k.drained(t, &views):
		t.settled = time.Time{}
	case t.settled.IsZero():
		t.settled = now
	}
	switch {
	case gone, now.Sub(t.began) > pendingTimeout:
		k.abort(p, Lost)
		t.result <- refuse(LostPending, nil)
		return 0
	case t.settled.IsZero() || now.Sub(t.settled) < settleTime:
		return pause(now.Sub(t.began))
	}
	for i := range p.streams { // the caller has copied what came before
		p.streams[i].begin(views[i].RcvNxt, t.fresh[i])
	}
	if err := k.activate(p); err != nil {
		k.abort(p, Lost)
		t.result <- refuse(LostPending, err)
		return 0
	}
	t.result <- nil
	k.look(p) // it may have ended meanwhile
	return 0
}

// activate silences our sockets, and lets the program alone speak for them.
func (k *keeper) activate(p *Pair) error {
	if err := p.eachSocket(freeze); err != nil {
		return err
	}
	p.entry.setState(active)
	p.taken = true
	k.count(Taken)
	return nil
}
