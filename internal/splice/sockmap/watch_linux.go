package sockmap

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// While bytes of a direction that has ended wait in the kernel, the kernel is asked at these
// intervals, which double.
const (
	minPause = time.Millisecond
	maxPause = 16 * time.Millisecond
)

// observe has the ends of a pair's sockets reported to watch, also those that have come
// already. Data is not reported.
func (p *Program) observe(pair *Pair) error {
	for i := range pair.sides {
		err := pair.sides[i].control(func(fd int) error {
			event := &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLET, Fd: pair.number}
			return unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, event)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// watch passes on the ends of all pairs, until the program is closed.
func (p *Program) watch() {
	var events [64]unix.EpollEvent
	ending := make(map[*Pair]struct{})
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		timeout := -1
		if len(ending) > 0 {
			timeout = int(pause.Milliseconds())
		}
		n, err := unix.EpollWait(p.epoll, events[:], timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // cannot be: the descriptor is open, and the memory is there
		}
		for _, event := range events[:max(n, 0)] {
			if event.Fd == 0 {
				return
			}
			if pair := p.pair(event.Fd); pair != nil {
				ending[pair] = struct{}{}
				pause = minPause
			}
		}
		for pair := range ending {
			if !pair.step() {
				delete(ending, pair)
			}
		}
	}
}
