package relay

import (
	"context"
	"errors"
	"iter"
	"log/slog"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/datapath"
	"github.com/quicway/quicway/internal/ratelog"
)

// offload forwards packets in place of the forwarding loops, by a copy of what the
// server knows of its sessions. A packet that the offload does not forward goes to a
// forwarding loop, so an error of the offload does no harm. The server makes the calls
// about one session one after the other.
type offload interface {
	routeTable
	// openPort makes the offload forward packets to a port of the relay, and
	// closePort ends that.
	openPort(port uint16) error
	closePort(port uint16) error
	// setDue sets the counter from which on an ID of a leg is reported as an event.
	setDue(num uint64, role control.Role, counter uint64)
	// putSession sets the addresses of the two legs of a session.
	putSession(num uint64, legs [2]datapath.Leg)
	// deleteSession removes a session.
	deleteSession(num uint64)
	// traffic returns what has been forwarded to each leg of a session.
	traffic(num uint64) [2]datapath.Traffic
	// note keeps what the next server has to know of a session.
	note(num uint64, note []byte)
	// idsPerLeg is how many IDs of a leg the offload should know. 0: none.
	idsPerLeg() uint64
	// events yields packets that should slide a window, until ctx is done.
	events(ctx context.Context) iter.Seq[datapath.Event]
	// current says whether the session of an event is still the one that the event is about.
	current(e datapath.Event) bool
	// pinned says whether the offload goes on to forward without the server.
	pinned() bool
	// errors is how many calls have failed.
	errors() uint64
}

// noOffload forwards nothing.
type noOffload struct{}

var _ offload = noOffload{}

func (noOffload) putRoute(cid.ID, cid.Association)          {}
func (noOffload) deleteRoute(cid.ID, cid.Association)       {}
func (noOffload) setDue(uint64, control.Role, uint64)       {}
func (noOffload) putSession(uint64, [2]datapath.Leg)        {}
func (noOffload) deleteSession(uint64)                      {}
func (noOffload) traffic(uint64) (none [2]datapath.Traffic) { return none }
func (noOffload) note(uint64, []byte)                       {}
func (noOffload) idsPerLeg() uint64                         { return 0 }
func (noOffload) openPort(uint16) error                     { return nil }
func (noOffload) closePort(uint16) error                    { return nil }
func (noOffload) pinned() bool                              { return false }
func (noOffload) errors() uint64                            { return 0 }
func (noOffload) current(datapath.Event) bool               { return false }
func (noOffload) events(context.Context) iter.Seq[datapath.Event] {
	return func(func(datapath.Event) bool) {}
}

const (
	// kernelIDs is how many IDs of a leg the kernel knows: the one in use, one
	// before it for late packets, and three after it. quic-go keeps four IDs
	// ready, and uses each for thousands of packets, so there is time to add the
	// next one.
	kernelIDs = 5
	// pinnedIDs is how many a pinned program knows, because no server adds more
	// while none runs: all that the window has ahead.
	pinnedIDs = cid.Ahead
)

// kernelOffload forwards in an XDP program.
type kernelOffload struct {
	stage  *datapath.Relay
	log    *slog.Logger
	failed ratelog.Errors
}

var _ offload = (*kernelOffload)(nil)

// index returns the index of a session in the program's table, which is its slot in
// the server's. It returns false if the program's table is too small for it.
func (o *kernelOffload) index(num uint64) (uint32, bool) {
	slot := uint32(num & (1<<slotBits - 1))
	return slot, slot < o.stage.Sessions()
}

func (o *kernelOffload) idsPerLeg() uint64 {
	if o.stage.Pinned() {
		return pinnedIDs
	}
	return kernelIDs
}

func (o *kernelOffload) openPort(port uint16) error { return o.stage.OpenPort(port) }

// closePort returns no error if the owner of the program has closed it already.
func (o *kernelOffload) closePort(port uint16) error {
	if err := o.stage.ClosePort(port); !errors.Is(err, datapath.ErrClosed) {
		return err
	}
	return nil
}

func (o *kernelOffload) events(ctx context.Context) iter.Seq[datapath.Event] {
	return o.stage.Events(ctx)
}

func (o *kernelOffload) current(e datapath.Event) bool { return o.stage.Current(e) }

func (o *kernelOffload) pinned() bool { return o.stage.Pinned() }

func (o *kernelOffload) errors() uint64 { return o.failed.Count() }

func (o *kernelOffload) putRoute(id cid.ID, a cid.Association) {
	if index, ok := o.index(a.Session); ok {
		o.check(o.stage.PutRoute(id, datapath.Route{Session: index, Leg: a.Leg, Counter: a.Counter}))
	}
}

func (o *kernelOffload) deleteRoute(id cid.ID, a cid.Association) {
	if index, ok := o.index(a.Session); ok {
		o.check(o.stage.DeleteRoute(id, datapath.Route{Session: index, Leg: a.Leg, Counter: a.Counter}))
	}
}

func (o *kernelOffload) setDue(num uint64, role control.Role, counter uint64) {
	if index, ok := o.index(num); ok {
		o.check(o.stage.SetDue(index, uint8(role), counter))
	}
}

func (o *kernelOffload) putSession(num uint64, legs [2]datapath.Leg) {
	index, ok := o.index(num)
	if !ok {
		o.check(datapath.ErrFull)
		return
	}
	o.check(o.stage.PutSession(index, legs))
}

func (o *kernelOffload) deleteSession(num uint64) {
	if index, ok := o.index(num); ok {
		o.check(o.stage.DeleteSession(index))
	}
}

func (o *kernelOffload) traffic(num uint64) [2]datapath.Traffic {
	index, ok := o.index(num)
	if !ok {
		return [2]datapath.Traffic{}
	}
	t, err := o.stage.Traffic(index)
	o.check(err)
	return t
}

func (o *kernelOffload) note(num uint64, note []byte) {
	if index, ok := o.index(num); ok {
		o.check(o.stage.PutNote(index, note))
	}
}

// check counts errors, and logs the first one.
func (o *kernelOffload) check(err error) {
	if err == nil || errors.Is(err, datapath.ErrClosed) {
		return
	}
	o.failed.Add(o.log, slog.LevelWarn, "the kernel does not take all sessions; the server forwards the others", err)
}
