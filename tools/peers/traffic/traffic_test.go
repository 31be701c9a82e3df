package traffic

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/quicway/quicway/monitor"
)

// read gives a capture to a monitor.
func read(t *testing.T, capture []byte) *monitor.Tracker {
	t.Helper()
	source, err := monitor.NewReader(bytes.NewReader(capture))
	if err != nil {
		t.Fatal(err)
	}
	tracker, err := monitor.NewTracker(nil)
	if err != nil {
		t.Fatal(err)
	}
	for {
		var p monitor.Packet
		if err := source.Read(&p); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			return tracker
		}
		tracker.Packet(&p)
	}
}

// TestWrite checks that a capture holds what it says, by the monitor.
func TestWrite(t *testing.T) {
	const size = 4 << 20
	var out bytes.Buffer
	content, err := Write(&out, size)
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(out.Len()); n != content.Bytes || n < size || n > size*5/4 {
		t.Errorf("%d bytes, want %d, and some more than %d", n, content.Bytes, size)
	}
	tracker := read(t, out.Bytes())
	names := make(map[string]bool)
	connections := 0
	for c := range tracker.Connections() {
		connections++
		if !strings.HasSuffix(c.ServerName, NameSuffix) {
			t.Errorf("a connection has the name %q", c.ServerName)
		}
		names[c.ServerName] = true
	}
	if connections != content.Connections || len(names) != connections || connections < 50 {
		t.Errorf("%d connections with %d names, want %d, and at least 50", connections, len(names), content.Connections)
	}
	stats := tracker.Stats()
	if int64(stats.Tracked) != content.QUICPackets || int64(stats.Packets) != content.Packets {
		t.Errorf("%d packets, of which %d of QUIC; want %d and %d", stats.Packets, stats.Tracked, content.Packets, content.QUICPackets)
	}
	if content.QUICPackets*4 > content.Packets*3 {
		t.Errorf("%d of %d packets are of QUIC: too little else", content.QUICPackets, content.Packets)
	}
}

// TestSame checks that two captures of the same size are the same.
func TestSame(t *testing.T) {
	var one, two bytes.Buffer
	for _, out := range []*bytes.Buffer{&one, &two} {
		if _, err := Write(out, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("they differ")
	}
}

// TestHello checks that it is known where the hellos of two connections differ.
func TestHello(t *testing.T) {
	const random, x25519, mlkem = 32, 32, 1184
	for kind, want := range [helloKinds]int{
		quicHello:  random + x25519 + mlkem + x25519, // the key for X25519MLKEM768 has one for X25519
		shortHello: random + x25519,
		tcpHello:   random + 32 + x25519 + mlkem + x25519, // with a session ID
	} {
		h, err := newHello(kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := h.message[h.name:][:len(placeholder)]; string(got) != placeholder {
			t.Errorf("kind %d: the name is %q", kind, got)
		}
		got := 0
		for _, part := range h.random {
			got += part[1] - part[0]
		}
		if got != want {
			t.Errorf("kind %d: %d bytes are random, want %d", kind, got, want)
		}
	}
}

// TestCut checks that the frames of a ClientHello hold all of it, once.
func TestCut(t *testing.T) {
	for _, length := range []int{300, 1204, 1205, 1217, 1500, 1700} {
		message := make([]byte, length)
		for i := range message {
			message[i] = byte(i)
		}
		got, count := make([]byte, length), 0
		for _, frames := range cut(message, 100, 20) {
			for len(frames) > 0 {
				offset := int(frames[1]&0x3f)<<8 | int(frames[2])
				n := int(frames[3]&0x3f)<<8 | int(frames[4])
				count += copy(got[offset:], frames[5:5+n])
				frames = frames[5+n:]
			}
		}
		if count != length || !bytes.Equal(got, message) {
			t.Errorf("%d of %d bytes, or others", count, length)
		}
	}
}
