// Package datapath is the kernel's part of Quicway: one XDP program for an interface, with
// a stage each for packages relay, quota and monitor. A stage applies what Go has decided,
// and passes every packet that it is not sure of.
//
// [Program] is the program with its maps. [Relay], [Quota] and [Monitor] each give access to
// the maps of one stage: packages relay, quota and monitor decide what to write there. Package
// xdp is the public API, and has the documentation for users.
//
// The program's C code is in the folder bpf. datapath.c is the program at ingress, and egress.c
// is the monitor stage at egress.
package datapath
