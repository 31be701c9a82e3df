// Measures round trips by the spin bit, with the rules of monitor/spin.go (RFC 9312 §3.8.2). It
// reads the clock only at edges.
#pragma once
#include "flows.h"

#define SPIN_MIN_RATIO 4
#define SPIN_MAX_SAMPLE 30000000000ULL

// follow updates the state of one direction for n packets with a short header, which GRO may have
// put together. value is the spin bit of the first of them. A change among them is noticed with
// the next call.
static __always_inline void follow(struct spin *s, struct spin *reverse, bool value, __u32 n) {
	bool renewed = s->renewed;
	s->renewed   = false;
	s->packets += n;
	if (unlikely(!s->started)) {
		s->started = true;
		s->value   = value;
		return;
	}
	if (likely(value == s->value))
		return;
	__u64 before = s->edge;
	s->value     = value;
	if (renewed && reverse->edge <= before && (before || !value))
		return; // a reset, or a late packet from before one
	__u64 now = bpf_ktime_get_ns();
	s->edges++;
	s->edge = now;
	if (!before) // the first edge has no predecessor
		return;
	__u64 sample = now - before;
	if (!sample || sample > SPIN_MAX_SAMPLE || (s->samples > 2 && sample * SPIN_MIN_RATIO < s->sum / 8)) {
		s->rejected++;
	} else {
		s->sum = s->samples ? s->sum + sample - s->sum / 8 : 8 * sample;
		s->samples++;
	}
	if (reverse->edge > before)
		s->half = now - reverse->edge;
}
