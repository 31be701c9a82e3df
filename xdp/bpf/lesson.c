// Writes what Go has to say of a flow into the program's map, in place, which Go
// itself cannot: no packet that is counted meanwhile is lost. Only Go runs it, with
// a lesson.
#include "tracks.h"

char __license[] SEC("license") = "Dual MIT/GPL";

struct lesson {
	struct pair pair;
	__u32 more;         // long headers are to be shown whole again
	__u32 set_spin[2];  // which lanes' spin is to be taken over
	struct track track; // of which the lanes' counters mean nothing
};

static __always_inline void learn(struct lane *l, struct lane *from, bool set_spin, bool more) {
	l->taught = UNTAUGHT; // while it changes
	for (int i = 0; i < ID_WORDS; i++) {
		l->id[i]   = from->id[i];
		l->mask[i] = from->mask[i];
	}
	l->id_len  = from->id_len;
	l->segment = from->segment;
	if (set_spin)
		l->spin = from->spin;
	if (more)
		l->whole = 0;
	l->taught = from->taught;
}

// It returns 1 if there is such a flow.
SEC("syscall")
int quicway_teach(struct lesson *l) {
	struct pair pair = l->pair;
	struct track *t  = bpf_map_lookup_elem(&tracks, &pair);
	if (!t)
		return 0;
	learn(&t->lane[0], &l->track.lane[0], l->set_spin[0], l->more);
	learn(&t->lane[1], &l->track.lane[1], l->set_spin[1], l->more);
	t->ruled_out = l->track.ruled_out;
	return 1;
}
