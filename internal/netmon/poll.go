package netmon

import (
	"context"
	"time"
)

// poll is a system that does not report changes.
type poll struct {
	lister   func() ([]Address, error)
	interval time.Duration
	closer   func() error // nil: there is nothing to close
}

var _ system = (*poll)(nil)

func (p *poll) list() ([]Address, error) { return p.lister() }

func (p *poll) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(p.interval):
	}
}

func (p *poll) close() error {
	if p.closer == nil {
		return nil
	}
	return p.closer()
}
