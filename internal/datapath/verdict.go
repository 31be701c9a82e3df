package datapath

// Verdict is the result of the program for a packet, as [Program.Test] returns it.
type Verdict uint32

// The verdicts: enum xdp_action in linux/bpf.h.
const (
	Aborted Verdict = iota
	Drop
	Pass
	TX
	Redirect
)
