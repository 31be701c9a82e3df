// Follows the spin bit, with the filters of monitor/spin.go (RFC 9312 §3.8.2). The
// clock is read at edges only.
#pragma once
#include "flows.h"

#define SPIN_MIN_RATIO 4
#define SPIN_MAX_SAMPLE 30000000000ULL

// follow takes the first of n packets with a short header, and the state of the other
// direction. A value that changes after the first is seen with the next.
static __always_inline void follow(struct spin *s, struct spin *back, bool value, __u32 n) {
	s->packets += n;
	if (!s->started) {
		s->started = true;
		s->value   = value;
		return;
	}
	if (value == s->value)
		return;
	__u64 now    = bpf_ktime_get_ns();
	__u64 before = s->edge;
	s->value     = value;
	s->edges++;
	s->edge = now;
	if (!before) // the first edge has none to be measured from
		return;
	__u64 sample = now - before;
	if (!sample || sample > SPIN_MAX_SAMPLE || (s->samples > 2 && sample * SPIN_MIN_RATIO < s->sum / 8)) {
		s->rejected++;
	} else {
		s->sum = s->samples ? s->sum + sample - s->sum / 8 : 8 * sample;
		s->samples++;
	}
	if (back->edge > before)
		s->half = now - back->edge;
}
