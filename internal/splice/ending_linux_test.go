package splice

import "testing"

// TestConclusion checks how a pair has ended by what the programs have noted. A RST that comes after
// both ends have finished resets nothing.
func TestConclusion(t *testing.T) {
	t.Parallel()
	const finished = seenFIN | seenFINAck
	for _, tt := range []struct {
		client, upstream uint32
		want             End
	}{
		{0, 0, Running},
		{finished, seenFIN, Running},
		{finished, finished, Finished},
		{seenRST, 0, Reset},
		{finished, seenFIN | seenRST, Reset},
		{finished, finished | seenRST, Finished},
	} {
		k := &keeper{pairs: make(map[uint32]*Pair)}
		p := newPair(k, [2]tuple{})
		p.entry, p.taken = &splicePair{}, true
		p.entry.Halves[fromClient].Seen, p.entry.Halves[fromUpstream].Seen = tt.client, tt.upstream
		k.look(p)
		if p.End() != tt.want {
			t.Errorf("client %b, upstream %b: got %v, want %v", tt.client, tt.upstream, p.End(), tt.want)
		}
	}
}
