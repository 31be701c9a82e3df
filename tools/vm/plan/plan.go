// Package plan is the plan that the command vm passes to the init of a virtual machine.
package plan

// File is the path of the plan in the virtual machine. The plan is JSON.
const File = "/plan.json"

// Result begins the line with the result of a test binary: its package, its run time, and
// "passed" or the error.
const Result = "vm-result: "

// Plan is what init does.
type Plan struct {
	Modules []string // files of kernel modules, in the order of loading
	Tests   []Test   // in the order of running
}

// Test is one test binary.
type Test struct {
	Package string
	Binary  string   // path in the virtual machine
	Args    []string // of the binary
}
