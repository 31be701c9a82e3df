package sni

import (
	"errors"
	"fmt"

	"github.com/quicway/quicway/internal/splice"
)

// Unpin removes what a server with the [Splice].Pin of this directory has left in the kernel, and
// the directory. Both ends of each connection get a reset when they next send. Unpin returns nil
// if the directory does not exist, ErrBusy while a server uses it, and ErrConfig if the directory
// is not on a BPF file system. It fails on systems other than Linux.
func Unpin(dir string) error {
	err := splice.Unpin(dir)
	switch {
	case errors.Is(err, splice.ErrBusy):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, splice.ErrConfig):
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return err
}
