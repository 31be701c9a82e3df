//go:build !linux

package sni

import "syscall"

// setMaxSeg does nothing: there is no kernel path on this system.
func setMaxSeg(syscall.RawConn, int) error { return nil }
