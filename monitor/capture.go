package monitor

import (
	"errors"
	"fmt"
	"os"

	"github.com/quicway/quicway/internal/capture"
)

// live captures on interfaces of this host.
type live struct{ socket *capture.Socket }

var _ Source = (*live)(nil)

// Capture reads what crosses interfaces of this host, both ways, all of them if
// none is named. Datagrams that the kernel has put together are told apart. It
// needs Linux, and else returns an error that wraps ErrNotSupported, and
// CAP_NET_RAW, without which the error wraps ErrPermission.
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
