//go:build !linux

package udp

// newGroupEngine returns an engine with a goroutine for each member, because Go's poller does
// not wait for several sockets at once.
func newGroupEngine(g *Group) (groupEngine, error) { return newPlainGroup(g), nil }
