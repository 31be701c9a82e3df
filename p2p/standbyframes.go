package p2p

import (
	"fmt"

	"github.com/quic-go/quic-go/quicvarint"
)

// Frames about the relays of a connection. Peers that do not know them ignore them, and
// have no standby relay.
//
//	STANDBY {
//	  Number (i),
//	  Address Length (i), Address (..),
//	  Pin (256),
//	  Token Length (i), Token (..),
//	}
//	STANDBY_READY { Number (i), Result (i) }
//	TURNED { Number (i) }
//	SPARE { as STANDBY, without a Token }
//
// The dialer proposes a standby relay, at which it has registered its leg, by STANDBY. The
// accepter registers its leg there too, with its resume token, or with Token if the relay
// does not accept that. It answers with STANDBY_READY. Result 0 says that the leg is
// registered, and any other that it is not. TURNED says that the sender's packets go through
// the relay with that number from now on. The relay of the offer has the number 0. SPARE names
// a relay that the dialer may use. Both sides register there when they hear nothing from each
// other any more and have no standby relay.
const (
	frameStandby      frameType = 0x40
	frameStandbyReady frameType = 0x41
	frameTurned       frameType = 0x42
	frameSpare        frameType = 0x43
)

// Results of a proposal.
const (
	standbyRegistered = 0
	standbyRefused    = 1
)

// proposal is the content of a STANDBY or a SPARE frame.
type proposal struct {
	number uint64
	relay  Relay // Addr and Pin
	token  string
}

func (p proposal) frame(kind frameType) frame {
	b := quicvarint.Append(nil, p.number)
	b = appendBytes(b, []byte(p.relay.Addr))
	b = append(b, p.relay.Pin[:]...)
	return frame{kind, appendBytes(b, []byte(p.token))}
}

func parseProposal(payload []byte) (proposal, error) {
	var p proposal
	number, rest, err := cutVarint(payload)
	if err != nil {
		return p, err
	}
	addr, rest, err := cutBytes(rest, maxAddr)
	if err != nil || len(rest) < len(p.relay.Pin) {
		return p, fmt.Errorf("%w: relay of %d bytes", errSignal, len(payload))
	}
	p.number, p.relay.Addr = number, string(addr)
	token, _, err := cutBytes(rest[copy(p.relay.Pin[:], rest):], maxToken)
	if err != nil {
		return p, fmt.Errorf("%w: relay of %d bytes", errSignal, len(payload))
	}
	p.token = string(token)
	return p, nil
}

// standbyReady makes a STANDBY_READY frame.
func standbyReady(number, result uint64) frame {
	return frame{frameStandbyReady, quicvarint.Append(quicvarint.Append(nil, number), result)}
}

func parseStandbyReady(payload []byte) (number, result uint64, err error) {
	number, rest, err := cutVarint(payload)
	if err != nil {
		return 0, 0, err
	}
	result, _, err = cutVarint(rest)
	return number, result, err
}
