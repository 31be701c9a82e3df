// Package plan defines what the command vm passes to the init program of its virtual
// machine.
package plan

// File is the path of the plan in the machine, as JSON.
const File = "/plan.json"

// Result is the prefix of the line with the result of a test binary: its package, how long
// it ran, and "passed" or the error.
const Result = "vm-result: "

// Plan lists what a machine loads and runs.
type Plan struct {
	Modules []string // paths of kernel modules, in the order of loading
	Tests   []Test
}

// Test is one test binary.
type Test struct {
	Package string
	Binary  string // path
	Args    []string
}
