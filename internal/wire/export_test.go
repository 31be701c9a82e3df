package wire

import (
	"iter"
	"testing"
)

// Seeds is seeds, for the tests of package wire_test.
var Seeds = seeds

// Recorded yields the recorded datagrams, and the length of the connection IDs in their
// short headers.
func Recorded(tb testing.TB) iter.Seq2[[]byte, int] {
	all := flights(tb)
	return func(yield func([]byte, int) bool) {
		for _, d := range all {
			if !yield(d.data, d.idLen) {
				return
			}
		}
	}
}
