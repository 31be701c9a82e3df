package splice

import (
	"fmt"
	"log/slog"

	"github.com/quicway/quicway/internal/ratelog"
)

// Limits of [Config]. The table of flows has 1<<26 slots for maxPairs pairs.
const (
	defaultPairs = 16384
	maxPairs     = 1 << 22
)

// Config configures a [Program].
type Config struct {
	// MaxPairs is the number of pairs that there is room for. Each takes 320 bytes of the kernel's
	// memory, which is allocated at once, and 136 more with Pin. The default is 16384, and the most is
	// 4194304.
	MaxPairs int
	// Pin is a directory on a BPF file system, in which the program and its pairs outlive the
	// process. The next program with the directory takes them over: see Program.Pairs. MaxPairs
	// stays what it was. Empty: the spliced connections are reset when the process ends.
	Pin string
	// Logger gets rare messages. nil: none are logged.
	Logger *slog.Logger
}

// withDefaults returns a copy of c with the defaults filled in. c may be nil.
func (c *Config) withDefaults() (*Config, error) {
	var out Config
	if c != nil {
		out = *c
	}
	if out.MaxPairs < 0 || out.MaxPairs > maxPairs {
		return nil, fmt.Errorf("%w: MaxPairs is %d, want 0 to %d", ErrConfig, out.MaxPairs, maxPairs)
	}
	if out.MaxPairs == 0 {
		out.MaxPairs = defaultPairs
	}
	out.Logger = ratelog.New(out.Logger)
	return &out, nil
}
