// Package quicway is the root of a library for programs that run their own QUIC, on top of
// quic-go. There is nothing to import here. The packages are
//
//   - [github.com/quicway/quicway/p2p]: one QUIC connection between two peers that cannot
//     reach each other;
//   - [github.com/quicway/quicway/relay]: the server between them, which forwards their
//     packets and cannot decrypt them;
//   - [github.com/quicway/quicway/quota]: who may open connections to a QUIC server, how
//     many, and how fast;
//   - [github.com/quicway/quicway/monitor]: which QUIC connections there are in a capture
//     or on a host, without keys;
//   - [github.com/quicway/quicway/xdp]: the XDP program that forwards for a relay, drops
//     for a quota, and counts for a monitor (Linux);
//   - [github.com/quicway/quicway/metrics]: Prometheus collectors for all of these;
//   - [github.com/quicway/quicway/cid]: connection IDs that only peers and relay can
//     predict, and the store of who is behind them.
//
// # The contract
//
// Go decides, and the kernel accelerates. Every feature is complete in userspace, on every
// system that Go supports, without privileges. The exception is live capture, which needs
// Linux and root. The kernel holds a cache of what Go has decided, and passes every packet
// that it is not sure of to Go.
//
// In every package
//
//   - the zero Config works, and nil is a zero Config;
//   - a packet, however malformed, never causes an error or a panic: it is counted by the
//     reason for which it was dropped;
//   - what is kept for others is bounded, and expires;
//   - Close may be called twice and leaves no goroutine, and calls that wait return an
//     error that wraps net.ErrClosed;
//   - errors are distinguished by errors.Is and the Err variables;
//   - only the Logger of a Config gets log lines, and never one per packet.
package quicway
