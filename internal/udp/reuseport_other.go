//go:build !linux

package udp

import "syscall"

// CanShard says whether [Listen] supports more than one shard.
const CanShard = false

func reusePort(string, string, syscall.RawConn) error { return ErrShards }
