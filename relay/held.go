package relay

import (
	"bytes"
	"net/netip"
	"sync"
	"time"

	"github.com/quicway/quicway/internal/udp"
)

// Bounds of the packets that are held.
const (
	heldFor     = time.Second // longer than the registration that is under way
	maxHeldEach = 8           // packets to one leg: the first flight of a server
	maxHeld     = 1024        // packets in all
	maxHeldSize = 1500        // bytes of a packet: those of a handshake are smaller
)

// held holds packets to a leg whose peer is not registered yet. An accepter sends its
// first flight right behind its registration, and does not wait for the reply, so the
// flight may be here before the registration is served. The packets go on only to the
// leg that they are addressed to, and only when a leg registers, as its peer, at the
// address that they have come from: what is held earns its sender nothing that the
// packets would not have earned a moment later.
//
// If there is no room, or nobody registers in time, they are dropped. The accepter sends
// them again, because the reply does not say that all were held. If there is no room in all,
// an account makes room that has more than others: no account can use up the room of others. Without
// Config.Authorize all sessions are of one account.
type held struct {
	mu       sync.Mutex // guards the following
	flights  map[*leg]*heldFlight
	packets  int
	accounts map[accountTag]int // packets, by the account of their session
}

// heldFlight is what is held for one leg.
type heldFlight struct {
	until   time.Time
	packets []heldPacket
}

type heldPacket struct {
	data     []byte
	from     netip.AddrPort
	ecn, ttl byte
}

// keep holds a run for a leg. It returns false if there is no room, or the peer has been
// registered meanwhile. Then the caller looks again. When one packet to a leg has been dropped,
// no further ones are held, and they take no lock: the accepter sends all of them again.
func (h *held) keep(r *run, to *leg, now time.Time) bool {
	if to.overheld.Load() {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if to.peer().addr.Load() != nil {
		return false // release has been called already
	}
	if !h.fitsLocked(r, to, now) || !h.makeRoomLocked(to.session.account, r.packets) {
		to.overheld.Store(true)
		return false
	}
	h.addLocked(r, to, now)
	return true
}

// fitsLocked says whether a run is within the bounds of its leg.
func (h *held) fitsLocked(r *run, to *leg, now time.Time) bool {
	packets := r.packets
	if f := h.flights[to]; f != nil {
		if now.After(f.until) {
			return false
		}
		packets += len(f.packets)
	}
	return packets <= maxHeldEach && len(r.data) <= maxHeldSize*r.packets
}

// makeRoomLocked makes room for packets of an account. It drops flights of the account that has
// most, if that has a flight more than the other account has then: otherwise two accounts could
// drop each other's flights in turns. It returns false if there is no room.
func (h *held) makeRoomLocked(account accountTag, packets int) bool {
	for h.packets+packets > maxHeld {
		most, n := account, h.accounts[account]+packets+maxHeldEach-1
		for other, has := range h.accounts {
			if has > n {
				most, n = other, has
			}
		}
		if most == account {
			return false
		}
		h.dropOneLocked(most)
	}
	return true
}

// dropOneLocked drops one of the flights of an account, which has some.
func (h *held) dropOneLocked(account accountTag) {
	for to := range h.flights {
		if to.session.account == account {
			to.overheld.Store(true)
			to.env().counters.heldDropped.Add(uint64(len(h.takeLocked(to))))
			return
		}
	}
}

// addLocked holds a run for which there is room.
func (h *held) addLocked(r *run, to *leg, now time.Time) {
	if h.flights == nil {
		h.flights, h.accounts = make(map[*leg]*heldFlight), make(map[accountTag]int)
	}
	f := h.flights[to]
	if f == nil {
		f = &heldFlight{until: now.Add(heldFor)}
		h.flights[to] = f
	}
	h.packets += r.packets
	h.accounts[to.session.account] += r.packets
	one := udp.Message{Data: r.data, SegmentSize: r.message.SegmentSize}
	for b := range one.Segments() {
		f.packets = append(f.packets, heldPacket{bytes.Clone(b), r.message.Remote, r.message.ECN, r.message.HopLimit})
	}
}

// take returns the packets for a leg, which are not held any more.
func (h *held) take(to *leg) []heldPacket {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.takeLocked(to)
}

func (h *held) takeLocked(to *leg) []heldPacket {
	f := h.flights[to]
	if f == nil {
		return nil
	}
	delete(h.flights, to)
	h.packets -= len(f.packets)
	account := to.session.account
	if h.accounts[account] -= len(f.packets); h.accounts[account] == 0 {
		delete(h.accounts, account)
	}
	return f.packets
}

// release sends on the packets that a leg had sent before it was registered, from the
// address that it has now. It returns whether these are all. The caller has set the
// address of the leg, and holds the lock of its session.
func (h *held) release(from *leg) (all bool) {
	e, to := from.env(), from.peer()
	at, src := to.addr.Load(), from.remote()
	packets := h.take(to)
	all = !to.overheld.Swap(false)
	for _, p := range packets {
		if at == nil || p.from != src {
			e.counters.heldDropped.Add(1)
			all = false
			continue
		}
		m := udp.Message{Data: p.data, Remote: at.remote, Local: at.local, ECN: p.ecn, HopLimit: max(p.ttl, 1) - 1}
		if at.tunnel == nil {
			_ = e.sockets.groups[at.group].sockets[0].Write(&m) // the socket counts what the system refuses
		} else if at.tunnel.queue.Push(&m) > 0 {
			e.counters.heldDropped.Add(1)
			all = false
			continue
		}
		e.counters.heldPackets.Add(1)
		e.counters.heldBytes.Add(uint64(len(p.data)))
	}
	return all
}

// expire drops the packets that have been held for too long. It returns how many.
func (h *held) expire(now time.Time) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for to, f := range h.flights {
		if now.After(f.until) {
			n += len(h.takeLocked(to))
			to.overheld.Store(true)
		}
	}
	return n
}
