// Package quicway is the root of a library for the QUIC traffic of one's own
// programs, on top of quic-go. There is nothing to import here; the packages
// are
//
//   - [github.com/quicway/quicway/p2p]: one QUIC connection between two peers
//     that cannot reach each other;
//   - [github.com/quicway/quicway/relay]: the server between them, which
//     forwards their packets and can read none;
//   - [github.com/quicway/quicway/quota]: who may open connections to a QUIC
//     server, how many, and how fast;
//   - [github.com/quicway/quicway/xdp]: the kernel's program, which forwards for a
//     relay, drops for a quota, and counts for a monitor (Linux);
//   - [github.com/quicway/quicway/monitor]: which QUIC connections cross a
//     host, in a capture or live, without a key;
//   - [github.com/quicway/quicway/metrics]: the counters of a relay, a quota, a
//     monitor and the kernel's program, for Prometheus;
//   - [github.com/quicway/quicway/cid]: connection IDs that only peers and
//     relay can predict, and the store of who is behind them.
//
// # The contract
//
// Go decides, the kernel accelerates. Every feature is complete in userspace, on
// every system that Go runs on, without privileges; but for capturing live, which
// is Linux's and root's. What a kernel can take over is a cache of decisions that
// Go has made, and whatever it is not sure of goes to Go.
//
// In every package
//
//   - the zero Config works, and nil is a zero Config;
//   - a packet, however malformed, is never an error and never a panic: it is
//     counted, by the reason for which nothing came of it;
//   - what is kept for others is bounded, and expires;
//   - Close may be called twice, leaves no goroutine, and ends calls that wait
//     with an error that wraps net.ErrClosed;
//   - errors are told apart by errors.Is and the Err variables;
//   - nothing is logged but to the Logger of a Config, and never per packet.
package quicway
