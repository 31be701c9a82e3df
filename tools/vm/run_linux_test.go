package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quicway/quicway/tools/vm/plan"
)

// TestLastLines checks that a report counts results, and keeps the end of the output, where the kernel says why
// it has stopped.
func TestLastLines(t *testing.T) {
	var out strings.Builder
	fmt.Fprintln(&out, plan.Result+"internal/datapath 1s passed\r")
	for i := range 2 * lastLines {
		fmt.Fprintf(&out, "line %d\r\n", i)
	}
	r := &report{kernel: "6.1"}
	if err := r.read(strings.NewReader(out.String()), false); err != nil {
		t.Fatal(err)
	}
	if r.results != 1 || r.failed != 0 {
		t.Errorf("%d results, %d failed", r.results, r.failed)
	}
	if n := len(r.last); n != lastLines || r.last[0] != fmt.Sprintf("line %d", lastLines) || r.last[n-1] != fmt.Sprintf("line %d", 2*lastLines-1) {
		t.Errorf("kept %d lines, from %q to %q", n, r.last[0], r.last[n-1])
	}
}
