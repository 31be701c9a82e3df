//go:build !linux

package nettest

// OnOneCPU calls f. On Linux it keeps f on one CPU.
func OnOneCPU(_ TB, f func()) { f() }
