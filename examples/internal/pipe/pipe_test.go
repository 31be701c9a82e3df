package pipe

import (
	"errors"
	"fmt"
	"testing"

	"github.com/quic-go/quic-go"
)

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
