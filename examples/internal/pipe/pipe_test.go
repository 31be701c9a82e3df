package pipe

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/schollz/progressbar/v3"
)

// TestBarDoesNotFail checks that a transfer does not fail because its bar does: there is more than
// the bar has room for, or nothing is expected, or stderr takes nothing.
func TestBarDoesNotFail(t *testing.T) {
	for _, size := range []int64{0, 4, 100, -1} {
		bar := progressbar.NewOptions64(size, progressbar.OptionSetWriter(full{}))
		for range 3 {
			if n, err := (shown{bar}).Write([]byte("six...")); n != 6 || err != nil {
				t.Errorf("size %d: got %d, %v", size, n, err)
			}
		}
	}
}

// full takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestPlain checks the words for the end of a connection, also if a stream's error says it.
func TestPlain(t *testing.T) {
	other := errors.New("no space left")
	for _, test := range []struct {
		err  error
		want string
	}{
		{other, "no space left"},
		{&quic.ApplicationError{ErrorCode: early, ErrorMessage: "no space left"}, "no space left"},
		{
			fmt.Errorf("read: %w", &quic.ApplicationError{Remote: true, ErrorCode: early, ErrorMessage: "interrupted"}),
			"the other side closed the connection early: interrupted",
		},
		{&quic.ApplicationError{Remote: true, ErrorCode: 7}, "Application error 0x7 (remote)"},
	} {
		if got := plain(test.err); got.Error() != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
