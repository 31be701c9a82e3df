package program

import (
	"errors"
	"testing"
)

// TestAnyPort checks how often sockets are opened, by the address and the number of attempts that
// fail.
func TestAnyPort(t *testing.T) {
	taken := errors.New("taken")
	for _, test := range []struct {
		address         string
		failures, calls int
		want            error
	}{
		{"127.0.0.1:0", 0, 1, nil},
		{"127.0.0.1:0", portTries - 1, portTries, nil},
		{"[::1]:0", portTries, portTries, taken},
		{":80", 1, 1, taken},
	} {
		calls := 0
		err := AnyPort(test.address, func() error {
			if calls++; calls <= test.failures {
				return taken
			}
			return nil
		})
		if err != test.want || calls != test.calls {
			t.Errorf("%s, %d failures: %d calls, %v", test.address, test.failures, calls, err)
		}
	}
}
