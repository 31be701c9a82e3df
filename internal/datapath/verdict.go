package datapath

// Verdict is what the program says about a packet that [Program.Test] shows it.
type Verdict uint32

// The verdicts, as in linux/bpf.h.
const (
	Aborted Verdict = iota
	Drop
	Pass
	TX
	Redirect
)
