package splice

import (
	"errors"
	"fmt"
	"time"
)

// End says how the life of a [Pair] in the kernel has ended.
type End uint8

const (
	// Running: the kernel relays the pair.
	Running End = iota
	// Finished: both ends have finished, and acknowledged each other's end.
	Finished
	// Reset: an end, or [Pair.Abort], has reset the connections.
	Reset
	// CameBack: the connections are in userspace again. [Pair.Return] returns them.
	CameBack
	// Left: the program was closed, and is pinned. The kernel goes on without the process.
	Left
	// Lost: the kernel's part has given the connections up, and reset them.
	Lost
)

var endNames = [...]string{"running", "finished", "reset", "came_back", "left", "lost"}

// String returns the end in one word.
func (e End) String() string {
	if int(e) < len(endNames) {
		return endNames[e]
	}
	return fmt.Sprintf("end(%d)", uint8(e))
}

// Half is what the kernel has seen of one direction of a [Pair] since the takeover: the packets
// from one end.
type Half struct {
	Packets       uint64
	Bytes         uint64 // of payload, with those that came again
	Retransmitted uint64 // the part of Bytes that came again, or out of order
	// Stream is the number of bytes of the stream, each counted once. Of a pair of an earlier
	// process it counts those since Load.
	Stream uint64
	// Last is the time of the last packet, to a millisecond or a few. The zero time: there was
	// none.
	Last     time.Time
	Finished bool // the end has sent all that it had to send
}

// errors of ways back. A pair goes on in the kernel after each of them.
var (
	// ErrEnding: an end has finished. The pair ends when the other one does.
	ErrEnding = errors.New("an end of the connection has finished")
	// ErrTimeout: the ends did not acknowledge all bytes in time.
	ErrTimeout = errors.New("the ends have not acknowledged all bytes in time")
	// ErrEnded: the pair has ended.
	ErrEnded = errors.New("the pair has ended")
)
