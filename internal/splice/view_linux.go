package splice

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// peeker reads what the kernel knows of sockets. It must be used by one goroutine at a time, on
// a thread in the network namespace of the sockets.
type peeker struct {
	objects peekObjects
	frame   [14]byte // a packet that the program does not read: the kernel wants one
}

func newPeeker() (*peeker, error) {
	p := &peeker{}
	if err := loadPeekObjects(&p.objects, &ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogDisabled: true}}); err != nil {
		return nil, fmt.Errorf("load the program that reads sockets: %w", err)
	}
	return p, nil
}

func (p *peeker) close() error {
	if p == nil {
		return nil
	}
	return p.objects.Close()
}

// peek reads both sockets of a pair. A view whose Found is 0 says that the kernel has no such
// socket, or one that is not connected any more.
func (p *peeker) peek(client, upstream tuple) (views [2]peekView, err error) {
	views = [2]peekView{ask(client), ask(upstream)}
	if err := p.objects.Views.Set(&views); err != nil {
		return views, fmt.Errorf("ask for sockets: %w", err)
	}
	if _, err := p.objects.Peek.Run(&ebpf.RunOptions{Data: p.frame[:]}); err != nil {
		return views, fmt.Errorf("read sockets: %w", err)
	}
	if err := p.objects.Views.Get(&views); err != nil {
		return views, fmt.Errorf("read sockets: %w", err)
	}
	return views, nil
}

// ask returns a view that only has addresses.
func ask(e tuple) peekView {
	v := peekView{Remote: e.remote.Addr().As16(), Local: e.local.Addr().As16()}
	_, v.RemotePort = words(e.remote)
	_, v.LocalPort = words(e.local)
	return v
}

// markRestored tells the program that a socket was made from numbers.
func (p *peeker) markRestored(fd int, past peekPast) error {
	return p.objects.Restored.Put(uint32(fd), past)
}

// position returns how far the stream has come.
func (v *peekView) position() position {
	return position{
		sndUna: v.SndUna, writeSeq: v.WriteSeq, rcvNxt: v.RcvNxt, copiedSeq: v.CopiedSeq,
		bytesAcked: v.BytesAcked, bytesRecv: v.BytesReceived,
	}
}
