// Sets the rules of a flow in its map entry, in place. Go cannot do that itself: if Go replaced the
// entry, packets that are counted meanwhile would be lost. Go runs this program with a struct
// flow_rules as the context.
#include "flows.h"

char __license[] SEC("license") = "Dual MIT/GPL";

struct flow_rules {
	struct pair pair;
	__u32 whole_again; // report long headers whole again
	__u32 set_spin[2]; // replace the spin state of this direction
	struct flow flow;  // rules, IDs and spin states; the counters are not used
};

static __always_inline void set_rule(struct direction *d, struct direction *from, bool set_spin, bool whole_again) {
	d->match = MATCH_NONE; // no packet matches while the ID changes
	for (int i = 0; i < ID_WORDS; i++) {
		d->id[i]   = from->id[i];
		d->mask[i] = from->mask[i];
	}
	d->id_len  = from->id_len;
	d->segment = from->segment;
	if (set_spin)
		d->spin = from->spin;
	if (whole_again)
		d->whole = 0;
	d->match = from->match;
}

// quicway_set_rules returns 1 if the flow exists, and 0 if not.
SEC("syscall")
int quicway_set_rules(struct flow_rules *r) {
	struct pair pair = r->pair;
	struct flow *f   = bpf_map_lookup_elem(&flows, &pair);
	if (!f)
		return 0;
	set_rule(&f->direction[0], &r->flow.direction[0], r->set_spin[0], r->whole_again);
	set_rule(&f->direction[1], &r->flow.direction[1], r->set_spin[1], r->whole_again);
	f->ignored = r->flow.ignored;
	return 1;
}
