// Package plan is what the command vm tells the init of its virtual machine to do.
package plan

// File is where the machine finds the plan, as JSON.
const File = "/plan.json"

// Result begins the line that says how a test binary ended: its package, how long
// it ran, and "passed" or the error.
const Result = "vm-result: "

// Plan is what a machine does.
type Plan struct {
	Modules []string // files of kernel modules, in the order of loading
	Tests   []Test
}

// Test is one test binary.
type Test struct {
	Package string
	Binary  string // file
	Args    []string
}
