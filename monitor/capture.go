package monitor

import (
	"errors"
	"fmt"
	"os"

	"github.com/quicway/quicway/internal/capture"
)

// live is a source that captures on interfaces of this host.
type live struct{ socket *capture.Socket }

var _ Source = (*live)(nil)

// Capture returns a source that captures packets on interfaces of this host by
// their names, or on all interfaces if there are no names. It sees packets that are
// received and packets that are sent, and the size of datagrams that the kernel has
// put together (GRO, GSO). The error wraps [ErrNotSupported] on systems other than
// Linux, and [ErrPermission] without CAP_NET_RAW.
func Capture(interfaces ...string) (Source, error) {
	socket, err := capture.Open(interfaces)
	switch {
	case errors.Is(err, capture.ErrNotSupported):
		return nil, fmt.Errorf("monitor: %w", ErrNotSupported)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("monitor: %w: %w", ErrPermission, err)
	case err != nil:
		return nil, fmt.Errorf("monitor: capture: %w", err)
	}
	return &live{socket}, nil
}

// Read implements [Source].
func (l *live) Read(p *Packet) error {
	var f capture.Frame
	if err := l.socket.Read(&f); err != nil {
		return fmt.Errorf("monitor: capture: %w", err)
	}
	*p = Packet{
		Time: f.Time, Interface: f.Interface, Link: LinkType(f.Link),
		Data: f.Data, Length: f.Length, SegmentSize: f.SegmentSize,
	}
	switch {
	case f.Outgoing:
		p.Direction = Outbound
	case f.Incoming:
		p.Direction = Inbound
	}
	return nil
}

// Live implements [Source].
func (l *live) Live() bool { return true }

// Dropped implements [Source].
func (l *live) Dropped() uint64 { return l.socket.Dropped() }

// Close implements [Source].
func (l *live) Close() error { return l.socket.Close() }
