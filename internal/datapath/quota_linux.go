package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Quota gives access to the quota stage of a program. Every verdict expires, and holds only while
// the caller renews the lease ([Quota.Renew]): when the process ends, all packets pass. All
// methods may be called concurrently. After Close of the Quota or the Program they return
// ErrClosed.
type Quota struct {
	p *Program

	// Guarded by the program's mutex.
	closed bool
	rules  datapathRules
	clock  clock
	guards [65536 / guardedPorts]datapathGuard
	// Length of the prefix of a source, of IPv4 and of IPv6: -1 before SetPolicy.
	sourceBits [2]int
	usedSets   map[uint32]struct{} // of the table of denied sources
}

// The number of entries in a value of guards and of attempts, and the number of hash keys
// (bpf/initial.h).
const (
	guardedPorts = len(datapathGuard{}.Port)
	attemptSlots = len(datapathAttemptSet{}.Tag)
	hashKeys     = 69
)

// The bits of an address in the program, and those of the prefix of IPv4 addresses, which are
// mapped to IPv6.
const (
	addrBits = 128
	ipv4Bits = addrBits - 32
)

// Quota opens the quota stage. It begins without any rules, and passes all packets until the first
// call of Renew. Quota returns ErrBusy until the previous user has closed it, and the error of
// [Program.StageErr] if the program lacks the stage. The caller closes it.
func (p *Program) Quota() (*Quota, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, ErrClosed
	case p.StageErr(QuotaStage) != nil:
		return nil, p.StageErr(QuotaStage)
	case p.quota != nil:
		return nil, fmt.Errorf("xdp: quota stage: %w", ErrBusy)
	}
	q := &Quota{p: p, sourceBits: [2]int{-1, -1}, usedSets: make(map[uint32]struct{})}
	if err := q.compareClocks(); err != nil {
		return nil, err
	}
	p.quota = q
	return q, nil
}

// lock locks the program's mutex. It returns ErrClosed, with the mutex unlocked, after Close.
func (q *Quota) lock() error {
	q.p.mu.Lock()
	if q.closed || q.p.closed {
		q.p.mu.Unlock()
		return ErrClosed
	}
	return nil
}

// Close removes all verdicts and the state of all rates, so that all packets pass, and makes the
// stage available to the next user. Further calls do nothing and return nil.
func (q *Quota) Close() error {
	if q.lock() != nil {
		return nil
	}
	defer q.p.mu.Unlock()
	q.closed = true
	q.p.quota = nil
	o := &q.p.objects
	errs := []error{o.Policy.Put(uint32(0), datapathRules{}), q.forgetSources()}
	for word := range q.guards {
		if q.guards[word] != (datapathGuard{}) {
			errs = append(errs, o.Guards.Put(uint32(word), datapathGuard{}))
		}
	}
	for _, m := range []*ebpf.Map{o.Allowed, o.Denied, o.Exceptions, o.Refused, o.Buckets} {
		errs = append(errs, deleteIf(m, func([]byte) bool { return true }))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("xdp: close quota stage: %w", err)
	}
	return nil
}

// compareClocks compares the program's clock with the monotonic clock.
func (q *Quota) compareClocks() (err error) {
	q.clock, err = q.p.compareClocks()
	return err
}

// now returns the time of the program's clock.
func (q *Quota) now() uint64 { return q.clock.now() }

// deadline returns the time of the program's clock after ttl.
func (q *Quota) deadline(ttl time.Duration) uint64 { return q.now() + uint64(max(ttl, 0)) }

// Renew makes the verdicts hold for the given time from now on. With 0 all packets pass until the
// next call.
func (q *Quota) Renew(lease time.Duration) error {
	if err := q.lock(); err != nil {
		return err
	}
	defer q.p.mu.Unlock()
	if err := q.compareClocks(); err != nil {
		return err
	}
	q.rules.Lease = 0
	if lease > 0 {
		q.rules.Lease = q.deadline(lease)
	}
	return q.putRulesLocked()
}

// putRulesLocked writes the rules to the kernel.
func (q *Quota) putRulesLocked() error {
	if err := q.p.objects.Policy.Put(uint32(0), &q.rules); err != nil {
		return fmt.Errorf("xdp: set policy: %w", err)
	}
	return nil
}

// SetPolicy sets the policy. Call it once. It returns ErrFull if there are more exceptions than
// Config.Prefixes.
func (q *Quota) SetPolicy(policy *QuotaPolicy) error {
	if err := q.lock(); err != nil {
		return err
	}
	defer q.p.mu.Unlock()
	q.rules.Patience = uint64(policy.Patience)
	q.rules.Limits = policy.Limits.kernel(0)
	q.sourceBits = [2]int{policy.IPv4Bits, policy.IPv6Bits}
	q.rules.Mask4, q.rules.Mask6 = maskWords(ipv4Bits+policy.IPv4Bits), maskWords(policy.IPv6Bits)
	limited := policy.Limits.Packets.Interval > 0
	for prefix, limits := range policy.Exceptions {
		key := prefixKey(prefix)
		if err := asErrFull(q.p.objects.Exceptions.Put(&key, limits.kernel(key.Bits))); err != nil {
			return fmt.Errorf("xdp: put exception for %v: %w", prefix, err)
		}
		q.rules.Exceptions = 1
		limited = limited || limits.Packets.Interval > 0
	}
	if limited {
		q.rules.Packets = 1
	}
	return q.putRulesLocked()
}

// kernel returns the limits as the kernel has them. bits is the length of the prefix of an
// exception.
func (l QuotaLimits) kernel(bits uint32) datapathLimits {
	return datapathLimits{
		Attempt: uint64(l.Attempts.Interval), AttemptDepth: uint64(l.Attempts.Depth),
		Packet: uint64(l.Packets.Interval), PacketDepth: uint64(l.Packets.Depth),
		Bits: bits,
	}
}

// Guard makes the stage handle UDP packets to a port. idLen is the length of the connection IDs
// that its server issues.
func (q *Quota) Guard(port uint16, idLen int) error { return q.setGuard(port, uint8(idLen)+1) }

// Unguard makes the stage pass UDP packets to a port.
func (q *Quota) Unguard(port uint16) error { return q.setGuard(port, 0) }

func (q *Quota) setGuard(port uint16, entry uint8) error {
	if err := q.lock(); err != nil {
		return err
	}
	defer q.p.mu.Unlock()
	word := port / uint16(guardedPorts)
	q.guards[word].Port[port%uint16(guardedPorts)] = entry
	if err := q.p.objects.Guards.Put(uint32(word), &q.guards[word]); err != nil {
		return fmt.Errorf("xdp: guard port %d: %w", port, err)
	}
	return nil
}

// Refuse makes the stage drop new attempts of a source for the time ttl. If ttl is 0 or less, it
// no longer drops them. Refuse returns how many packets were dropped since the last call for this
// source, and ErrFull if there is no room.
func (q *Quota) Refuse(source netip.Prefix, ttl time.Duration) (dropped uint64, err error) {
	if err := q.lock(); err != nil {
		return 0, err
	}
	defer q.p.mu.Unlock()
	key, m := prefixKey(source).Addr, q.p.objects.Refused
	var old datapathRefusal
	if err = m.Lookup(&key, &old); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return 0, fmt.Errorf("xdp: read source %v: %w", source, err)
	}
	if ttl <= 0 {
		err = m.Delete(&key)
	} else {
		err = q.putSwept(m, &key, &datapathRefusal{Until: q.deadline(ttl)})
	}
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return old.Packets, fmt.Errorf("xdp: refuse %v: %w", source, err)
	}
	return old.Packets, nil
}

// Expect makes the stage pass Initials from a peer that the server has dialed, for the time ttl, if
// their connection ID has the length of the server's IDs.
func (q *Quota) Expect(peer netip.AddrPort, ttl time.Duration) error {
	if err := q.lock(); err != nil {
		return err
	}
	defer q.p.mu.Unlock()
	port := binary.BigEndian.AppendUint16(nil, peer.Port())
	key := datapathOrigin{Addr: addrWords(peer.Addr()), Tag: uint64(binary.NativeEndian.Uint16(port))}
	if err := q.p.objects.Origins.Put(&key, q.deadline(ttl)); err != nil {
		return fmt.Errorf("xdp: expect %v: %w", peer, err)
	}
	return nil
}

// Drops yields sources that exceed their rates, each at most once a second, until ctx is done or
// the program is closed. Only one goroutine at a time may use it.
func (q *Quota) Drops(ctx context.Context) iter.Seq[SourceDrops] {
	const size = 24
	return func(yield func(SourceDrops) bool) {
		defer context.AfterFunc(ctx, func() { q.p.drops.Flush() })()
		var record ringbuf.Record
		for ctx.Err() == nil {
			err := q.p.drops.ReadInto(&record)
			if errors.Is(err, ringbuf.ErrFlushed) {
				continue
			}
			b := record.RawSample
			if err != nil || len(b) < size {
				return
			}
			d := SourceDrops{
				Source:  netip.AddrFrom16([16]byte(b)).Unmap(),
				Reason:  Reason(binary.NativeEndian.Uint32(b[16:])),
				Packets: binary.NativeEndian.Uint32(b[20:]),
			}
			if !yield(d) {
				return
			}
		}
	}
}

// prefixKey returns a prefix as struct prefix in bpf/rules.h.
func prefixKey(p netip.Prefix) datapathPrefix {
	p = p.Masked()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += ipv4Bits
	}
	return datapathPrefix{Bits: uint32(bits), Addr: addrWords(p.Addr())}
}

// addrWords returns an address in 16 bytes, as 32-bit words in network byte order.
func addrWords(addr netip.Addr) (words [4]uint32) {
	b := addr.As16()
	for i := range words {
		words[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return words
}

// maskWords returns the mask with the first bits set.
func maskWords(bits int) [4]uint32 {
	ones := netip.AddrFrom16([16]byte{
		0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	})
	return addrWords(netip.PrefixFrom(ones, bits).Masked().Addr())
}
