//go:build !linux

package sni

// loop exists on Linux only. On other systems goroutines serve all connections.
type loop struct{}

// startLoops reports that there are no loops.
func (s *Server) startLoops(func(error)) bool { return false }

func (*loop) stopAccepting() {}

// short is a connection in a loop.
type short struct{}

func (*short) postAbort() {}
