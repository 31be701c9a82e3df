// Package datapath is the kernel's part of Quicway: one XDP program for an interface, with
// a stage each for packages relay, quota and monitor. Each stage is a cache of what Go has
// decided, and passes every packet that it is not sure of.
//
// [Program] is the program with its maps. [Relay], [Quota] and [Monitor] are views of one
// stage each: they know addresses and connection IDs, but not what these are for. Package
// xdp is the public face: it has the documentation for users.
//
// The program's C code is in the folder bpf. datapath.c is the program at ingress, egress.c
// the monitor stage at egress, and rule.c changes the entry of a flow in place.
package datapath
