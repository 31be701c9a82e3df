package pipe

import (
	"flag"
	"os"
	"strings"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/p2p"
)

// Relays are the relays that the flag -relay names. It may be given several times.
type Relays []p2p.Relay

// Flag defines the flag. Call it before flag.Parse.
func (r *Relays) Flag(usage string) {
	flag.Func("relay", usage+"; may be given several times (default $QUICWAY_RELAY, URLs with spaces between them)", r.add)
}

// Set sets the relays of a configuration: those of the flag, or else of the environment. There
// may be none.
func (r *Relays) Set(conf *p2p.Config) error {
	if len(*r) == 0 {
		for _, url := range strings.Fields(os.Getenv("QUICWAY_RELAY")) {
			if err := r.add(url); err != nil {
				return program.Usagef("$QUICWAY_RELAY: %w", err)
			}
		}
	}
	conf.Relays = *r
	return nil
}

func (r *Relays) add(url string) error {
	relay, err := p2p.ParseRelay(url)
	if err == nil {
		*r = append(*r, relay)
	}
	return err
}
