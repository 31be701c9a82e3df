package splice

import "fmt"

// Stats returns how many packets of spliced connections the kernel has handled, and what has become of
// connections and pairs, by reason.
func (p *Program) Stats() (map[Reason]uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	out := make(map[Reason]uint64, endOfReasons)
	var perCPU []uint64
	for r := range kernelReasons {
		if err := p.objects.Counters.Lookup(uint32(r), &perCPU); err != nil {
			return nil, fmt.Errorf("splice: read counters: %w", err)
		}
		for _, n := range perCPU {
			out[r] += n
		}
	}
	for i := range p.keeper.counts {
		out[kernelReasons+Reason(i)] = p.keeper.counts[i].Load()
	}
	return out, nil
}
