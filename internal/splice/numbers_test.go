package splice

import (
	"math"
	"testing"
)

// TestOffsets checks the offsets for sequence numbers that do and do not wrap around.
func TestOffsets(t *testing.T) {
	// The first bytes of both sockets, in both directions.
	for _, first := range [][4]uint32{{1, 1, 1, 1}, {1000, 2000, 3000, 4000}, {math.MaxUint32 - 10, 5, math.MaxUint32, 1 << 31}, {0, math.MaxUint32, 1<<31 - 1, 0}} {
		for _, bytes := range [][2]uint64{{0, 0}, {1, 0}, {14, 3}, {1 << 31, 5}, {1<<32 + 7, 1<<33 - 1}} {
			for _, injected := range []uint64{0, 14, 1 << 32} {
				fromClient, fromUpstream := bytes[0], bytes[1]
				client := position{
					sndUna: first[0] + uint32(fromUpstream), bytesAcked: fromUpstream,
					rcvNxt: first[1] + uint32(fromClient), bytesRecv: fromClient,
				}
				upstream := position{
					sndUna: first[2] + uint32(injected+fromClient), bytesAcked: injected + fromClient + 1, // the SYN
					rcvNxt: first[3] + uint32(fromUpstream), bytesRecv: fromUpstream,
				}
				o := newOffsets(&client, &upstream, injected, false)
				want := offsets{toUpstream: first[2] + uint32(injected) - first[1], toClient: first[0] - first[3]}
				if o != want {
					t.Errorf("first %v, bytes %v, injected %d: %+v, want %+v", first, bytes, injected, o, want)
				}
				client.copiedSeq, client.writeSeq, upstream.copiedSeq, upstream.writeSeq = client.rcvNxt, client.sndUna, upstream.rcvNxt, upstream.sndUna
				if !drained(&client, &upstream, o.toUpstream) || !drained(&upstream, &client, o.toClient) {
					t.Errorf("first %v, bytes %v, injected %d: not drained", first, bytes, injected)
				}
				upstream.bytesAcked--
				if got := newOffsets(&client, &upstream, injected, true); injected == 0 && got != want {
					t.Errorf("restored, first %v, bytes %v: %+v, want %+v", first, bytes, got, want)
				}
			}
		}
	}
}

// TestDrained checks each thing that a direction may have to wait for.
func TestDrained(t *testing.T) {
	const add = 1 << 31
	from := position{rcvNxt: 5, copiedSeq: 5}
	to := position{writeSeq: 5 + add, sndUna: 5 + add}
	if !drained(&from, &to, add) {
		t.Error("not drained, although nothing is on its way")
	}
	for name, change := range map[string]func(){
		"not read":         func() { from.rcvNxt++ },
		"not written":      func() { from.rcvNxt++; from.copiedSeq++ },
		"not acknowledged": func() { to.sndUna-- },
	} {
		beforeFrom, beforeTo := from, to
		change()
		if drained(&from, &to, add) {
			t.Errorf("drained, although a byte is %s", name)
		}
		from, to = beforeFrom, beforeTo
	}
}

// TestTimestamps checks that the first timestamps that are forwarded continue the clocks of our
// sockets.
func TestTimestamps(t *testing.T) {
	for _, c := range [][4]uint32{{1, 2, 3, 4}, {math.MaxUint32, 5, 3, math.MaxUint32 - 7}, {1 << 31, 0, 0, 1<<31 - 1}} {
		var o offsets
		o.setTimestamps(c[0], c[1], c[2], c[3])
		if c[1]+o.tsToUpstream != c[2] || c[3]+o.tsToClient != c[0] {
			t.Errorf("%v: %+v", c, o)
		}
	}
}

func TestAfter(t *testing.T) {
	for _, c := range []struct {
		a, b uint32
		want bool
	}{{1, 0, true}, {0, 0, false}, {0, 1, false}, {3, math.MaxUint32, true}, {math.MaxUint32, 3, false}, {1<<31 - 1, 0, true}} {
		if got := after(c.a, c.b); got != c.want {
			t.Errorf("after(%d, %d) = %v", c.a, c.b, got)
		}
		if want := c.a; c.want && latest(c.b, c.a) != want {
			t.Errorf("latest(%d, %d) is not %d", c.b, c.a, want)
		}
	}
}
