package sni

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/quicway/quicway/internal/splice"
)

// SpliceStats are the counters of the kernel path. The JSON names stay. Later versions may
// add fields.
type SpliceStats struct {
	// Off says why all connections stay in userspace. It is empty if the kernel path is
	// in use, or if there is no Config.Splice.
	Off string `json:"off,omitempty"`
	// InKernel is the number of connections that the kernel relays at the moment.
	InKernel int `json:"in_kernel"`
	// Takeovers counts how often a connection went into the kernel, and Adopted the
	// connections that another process had left there.
	Takeovers uint64 `json:"takeovers"`
	Adopted   uint64 `json:"adopted"`
	// NotTaken counts by reason how often a connection stayed in userspace that has
	// passed Splice.MinBytes and Splice.MinAge. "policy" is the policy's decision, and
	// "other" an error without a reason. "lost_pending" counts connections that were reset
	// instead, because an end did not answer during the takeover. The other reasons are in
	// docs/sni.md. It has an entry for each reason.
	NotTaken map[string]uint64 `json:"not_taken"`
	// WaysBack counts by reason how often a connection came back from the kernel:
	// "policy", or a reason of the kernel's own. It has an entry for each reason.
	// WaysBackFailed counts attempts after which the connection stayed in the kernel.
	WaysBack       map[string]uint64 `json:"ways_back"`
	WaysBackFailed uint64            `json:"ways_back_failed"`
}

// spliceCounters are the counters of a splicer.
type spliceCounters struct {
	inKernel              atomic.Int64
	takeovers, backFailed atomic.Uint64
	adopted               atomic.Uint64
	notTaken, back        reasons
}

// reasons counts events by reason. The zero value is ready for use.
type reasons struct {
	mu sync.Mutex // guards n
	n  map[string]uint64
}

func (r *reasons) add(reason string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.n == nil {
		r.n = make(map[string]uint64)
	}
	r.n[reason]++
}

// addTo sets the counters of those that have occurred.
func (r *reasons) addTo(out map[string]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.Copy(out, r.n)
}

// notTakenReasons are the reasons why connections stay in userspace, and wayBackReasons those
// why they come back. Sockmap refuses connections only when it has got them.
var (
	notTakenReasons = append([]string{reasonPolicy, reasonOther, splice.LostPending.String()}, reasonsBetween(splice.RefusedProtocol, splice.RefusedBusy)...)
	wayBackReasons  = append([]string{
		reasonPolicy, reasonOther,
		splice.RefusedFull.String(), splice.RefusedBusy.String(), splice.RefusedState.String(),
	}, reasonsBetween(splice.WantedTooBig, splice.WantedInterface)...)
)

// reasonsBetween returns the names of the reasons from one to another.
func reasonsBetween(from, to splice.Reason) (all []string) {
	for r := from; r <= to; r++ {
		all = append(all, r.String())
	}
	return all
}

// uncounted returns counters that are 0.
func uncounted(reasons []string) map[string]uint64 {
	out := make(map[string]uint64, len(reasons))
	for _, r := range reasons {
		out[r] = 0
	}
	return out
}

// spliceStats returns the counters of the kernel path.
func (s *Server) spliceStats() SpliceStats {
	out := SpliceStats{Off: s.spliceOff, NotTaken: uncounted(notTakenReasons), WaysBack: uncounted(wayBackReasons)}
	if s.splicer == nil {
		return out
	}
	c := &s.splicer.counters
	out.InKernel, out.Takeovers, out.Adopted = int(c.inKernel.Load()), c.takeovers.Load(), c.adopted.Load()
	out.WaysBackFailed = c.backFailed.Load()
	c.notTaken.addTo(out.NotTaken)
	c.back.addTo(out.WaysBack)
	return out
}
