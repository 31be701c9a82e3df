package monitor

import "slices"

// maxCluster bounds the open moves that are decided together.
const maxCluster = 64

// cluster are open moves that may be moves of the same connections: those that fell silent when
// the paths came into use.
type cluster struct {
	moves []*openMove
	fell  [][]*connection // of each move
	all   []*connection
	even  bool // there are as many moves as connections
	still bool // a move may be one of a connection that had been silent before
}

// clusterOf returns the cluster of an open move. ok is false if it is too large, or some of its
// connections may just make a pause.
func (o *openMoves) clusterOf(m *openMove) (out cluster, ok bool) {
	out.moves = []*openMove{m}
	for i := 0; i < len(out.moves); i++ {
		var fell []*connection
		for j := range out.moves[i].choices {
			ch := &out.moves[i].choices[j]
			switch {
			case ch.standing == silent:
				out.still = true
			case ch.standing == pausing || len(out.all) > maxCluster:
				return out, false
			case ch.standing == fellSilent || ch.standing == lulled:
				fell = append(fell, ch.conn)
				o.link(&out, ch.conn)
			}
		}
		out.fell = append(out.fell, fell)
	}
	out.even = len(out.moves) == len(out.all)
	return out, true
}

// link adds a connection to a cluster, and the open moves that may be its moves.
func (o *openMoves) link(to *cluster, c *connection) {
	if slices.Contains(to.all, c) {
		return
	}
	to.all = append(to.all, c)
	for _, m := range o.list {
		if m.may(c) && !slices.Contains(to.moves, m) {
			to.moves = append(to.moves, m)
		}
	}
}

// matched returns the connection of an open move if there is only one way to give each move of
// the cluster a connection. If a move may be one of a connection that had been silent before, the
// cluster must be even: then each connection fell silent because it has moved.
func (o *openMoves) matched(m *openMove) *connection {
	c, ok := o.clusterOf(m)
	if !ok || c.still && !c.even {
		return nil
	}
	for range c.moves {
		i, found := c.forced()
		if found == nil {
			return nil
		}
		if c.moves[i] == m {
			if m.standingOf(found) != fellSilent {
				return nil
			}
			return found
		}
		c.moves, c.fell = slices.Delete(c.moves, i, i+1), slices.Delete(c.fell, i, i+1)
		for j := range c.fell {
			c.fell[j] = slices.DeleteFunc(c.fell[j], func(other *connection) bool { return other == found })
		}
		c.all = slices.DeleteFunc(c.all, func(other *connection) bool { return other == found })
	}
	return nil
}

// forced returns a move that can be only one connection's.
func (c *cluster) forced() (move int, found *connection) {
	for i, fell := range c.fell {
		if len(fell) == 1 {
			return i, fell[0]
		}
	}
	if !c.even {
		return 0, nil
	}
	for _, conn := range c.all {
		n, last := 0, 0
		for i, fell := range c.fell {
			if slices.Contains(fell, conn) {
				n++
				last = i
			}
		}
		if n == 1 {
			return last, conn
		}
	}
	return 0, nil
}
