// Notes what the packets of a direction show: how far its end has sent and acknowledged, and how it
// ends. What cannot be true is not noted, so that who guesses the addresses of a connection cannot
// change what Go and the programs know of it.
#pragma once
#include "csum.h"
#include "table.h"

// segment has the fields of a TCP segment in the numbers of its leg.
struct segment {
	__u32 seq;
	__u32 ack;
	__u32 len; // of the payload
	__u32 flags;
	__u32 window; // not scaled
	bool stamped; // has timestamps
	__be32 tsval;
	__be32 tsecr;
};

// STAMP is the first word of the options of a segment with timestamps: NOP, NOP, and the kind and
// length of the option (RFC 7323 appendix A).
#define STAMP bpf_htonl(0x0101080a)

static __always_inline void read_segment(struct segment *s, struct packet *p) {
	s->seq     = ntohl(p->tcp->seq);
	s->ack     = ntohl(p->tcp->ack);
	s->len     = p->len;
	s->flags   = ntohs(p->tcp->offset_flags) & 0x1ff;
	s->window  = ntohs(p->tcp->window);
	s->stamped = false;
	__be32 *o  = (void *)(p->tcp + 1);
	if (p->header >= sizeof(*p->tcp) + 12 && (void *)(o + 3) <= p->end && o[0] == STAMP) {
		s->stamped = true;
		s->tsval   = o[1];
		s->tsecr   = o[2];
	}
}

// ahead says whether sequence number a is after b.
static __always_inline bool ahead(__u32 a, __u32 b) {
	return (__s32)(a - b) > 0;
}

// raise sets *at to value if value is after it. Another CPU may do the same at the same time. If it
// does so again and again, the others have raised it instead. raise is a global function, which the
// verifier checks once and not for each call.
__attribute__((noinline)) int raise(__u32 *at, __u32 value) {
	if (!at)
		return 0;
	__u32 was = READ_ONCE(*at);
	for (int i = 0; i < 4 && ahead(value, was); i++) {
		__u32 found = __sync_val_compare_and_swap(at, was, value);
		if (found == was)
			break;
		was = found;
	}
	return 0;
}

// grow is raise without a call if there is nothing to do. It returns what *at was.
static __always_inline __u32 grow(__u32 *at, __u32 value) {
	__u32 was = READ_ONCE(*at);
	if (ahead(value, was))
		raise(at, value);
	return was;
}

// mark sets a bit of half.seen, and says whether it was not set before.
static __always_inline bool mark(struct half *h, __u32 bit) {
	return !(READ_ONCE(h->seen) & bit) && !(__sync_fetch_and_or(&h->seen, bit) & bit);
}

static __always_inline void tell(struct flow *f, enum what what, __u32 direction, __u16 mtu) {
	struct event e = {
		.pair       = f->index,
		.generation = f->generation,
		.what       = what,
		.direction  = direction,
		.mtu        = mtu,
	};
	if (bpf_ringbuf_output(&events, &e, sizeof(e), 0))
		count(EVENT_LOST);
}

// data_end is the sequence number after a segment.
static __always_inline __u32 data_end(struct segment *s) {
	return s->seq + s->len + (s->flags & FIN ? 1 : 0);
}

// expected is the sequence number that the other end expects next, as far as the program has seen its
// acknowledgements, and edge how far it lets this end send.
static __always_inline __u32 expected(struct flow *f) {
	return READ_ONCE(f->other->max_ack) - f->half->seq_add;
}
static __always_inline __u32 edge(struct flow *f) {
	return READ_ONCE(f->other->max_edge) - f->half->seq_add;
}

// largest_window is the largest window that can be announced with a scale.
static __always_inline __u32 largest_window(__u8 scale) {
	return 65535u << scale;
}

// plausible says whether this end could have sent the data of a segment. Its end must be within the
// window of the other end, but a probe of a closed window may be one byte beyond. Its begin is not
// before what this end may still send again, which is no more than the largest window that this end
// was ever given, or one byte before that in a probe.
static __always_inline bool plausible(struct flow *f, struct segment *s) {
	__u32 oldest = expected(f) - largest_window(f->half->own_scale) - 1;
	return !ahead(data_end(s), edge(f) + 1) && !ahead(oldest, s->seq);
}

// believable says whether the other end may take a segment, which is not a SYN or a RST, as one of this
// end. It must have an acknowledgement (RFC 9293 §3.10.7.4): of no more than the other end was let
// send, and not older by more than the largest window that the other end was ever given (RFC 5961 §5).
static __always_inline bool believable(struct flow *f, struct segment *s) {
	struct half *h = f->half;
	__u32 most = READ_ONCE(h->max_edge) + 1, oldest = READ_ONCE(h->max_ack) - largest_window(h->out_scale);
	return s->flags & ACK && !ahead(s->ack, most) && !ahead(oldest, s->ack) && plausible(f, s);
}

// want asks Go to take the pair back because of a segment, and says why. It does so once for each
// reason, and not for what this end could not have sent: otherwise a stranger could ask for it.
static __always_inline void want(struct flow *f, struct segment *s, __u32 bit) {
	if (plausible(f, s) && mark(f->half, bit))
		tell(f, WANTED, f->direction, 0);
}

// renumber gives an acknowledgement without data the number that the other end expects. An end whose
// window was made smaller than what it has sent numbers its acknowledgements by the end of the window.
// The other end would ignore them; and if both ends do so, no acknowledgement arrives any more. A
// probe, which is one byte before, stays as it is: its sender wants an answer. So does what this end
// could not have sent: with the right number the other end would believe it.
static __always_inline void renumber(struct flow *f, struct segment *s) {
	__u32 next = expected(f);
	if (!s->len && !(s->flags & (SYN | FIN | RST)) && ahead(next, s->seq + 1) && believable(f, s))
		s->seq = next;
}

// count_again counts the payload of a segment that was sent before, when the data ended at was.
static __always_inline void count_again(struct half *h, struct segment *s, __u32 was) {
	__s32 fresh = data_end(s) - was;
	if (fresh < 0)
		fresh = 0;
	if (fresh < (__s32)s->len)
		__sync_fetch_and_add(&h->retransmitted, (__u64)(s->len - fresh));
}

// note_data notes the payload and the FIN of a segment.
static __always_inline void note_data(struct half *h, struct segment *s) {
	__u32 end = data_end(s), was = grow(&h->max_end, end);
	count_again(h, s, was);
	// A FIN is the end of all data.
	if (s->flags & FIN && !ahead(was, end)) {
		h->fin_end = end;
		mark(h, SEEN_FIN);
	}
	if (s->stamped)
		grow(&h->last_ts, ntohl(s->tsval));
}

// note_ack notes an acknowledgement, and tells Go if it is the last one of the connection. What is
// acknowledged was sent, even if the program has not seen it.
static __always_inline void note_ack(struct flow *f, struct segment *s, bool telling) {
	__u32 ack = s->ack - f->other->seq_add;
	grow(&f->half->max_ack, s->ack);
	grow(&f->half->max_edge, s->ack + (s->window << f->half->in_scale));
	grow(&f->other->max_end, ack);
	f->half->window = s->window;
	if (!(READ_ONCE(f->other->seen) & SEEN_FIN) || ahead(f->other->fin_end, ack))
		return;
	if (mark(f->half, SEEN_FIN_ACK) && telling && READ_ONCE(f->other->seen) & SEEN_FIN_ACK)
		tell(f, FINISHED, f->direction, 0);
}

// note_reset notes a RST. It ends a connection only if it has exactly the sequence number that the
// other end expects (RFC 5961 §3.2), or will expect when it has all that was sent.
static __always_inline void note_reset(struct flow *f, struct segment *s) {
	if (s->seq != expected(f) && s->seq != READ_ONCE(f->half->max_end))
		count(UNBELIEVED);
	else if (mark(f->half, SEEN_RST))
		tell(f, RESET, f->direction, 0);
}

// note notes a segment if it can be true.
static __always_inline void note(struct flow *f, struct segment *s) {
	struct half *h = f->half;
	if (!believable(f, s))
		count(UNBELIEVED);
	else if (ahead(expected(f), data_end(s)))
		count_again(h, s, READ_ONCE(h->max_end)); // the other end ignores what it has (RFC 9293 §3.10.7.4)
	else {
		note_data(h, s);
		note_ack(f, s, true);
	}
}

// track_segment is track as a global function, which the verifier checks once for all kinds of
// packets. Such a function cannot get a struct with pointers.
__attribute__((noinline)) int track_segment(
	struct pair *pair, struct segment *s, __u32 index, __u32 direction, __u32 quiet) {
	if (!pair || !s)
		return 0;
	struct flow f = {.index = index, .direction = direction, .generation = pair->generation};
	join(&f, pair);
	struct half *h = f.half;
	__sync_fetch_and_add(&h->packets, 1ULL);
	if (s->len)
		__sync_fetch_and_add(&h->bytes, (__u64)s->len);
	h->last = bpf_ktime_get_coarse_ns() >> 20;
	if (s->flags & RST) {
		if (quiet)
			mark(h, SEEN_RST);
		else
			note_reset(&f, s);
	} else if (quiet) {
		note_data(h, s);
		if (s->flags & ACK)
			note_ack(&f, s, false);
	} else {
		note(&f, s);
	}
	return 0;
}

// track notes a segment. While our sockets still have the connections (QUIET), they decide what
// can be true, and Go looks at them.
static __always_inline void track(struct flow *f, struct segment *s, enum state state) {
	track_segment(f->pair, s, f->index, f->direction, state == QUIET);
}
