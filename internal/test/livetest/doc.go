// Package livetest makes and counts packets in the kernel, so that benchmarks measure what is
// between a sender and a sink, and little of these two.
package livetest
