package netmon

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Links watches the interfaces of a network namespace. It must not be used concurrently.
type Links struct {
	namespace netns.NsHandle
	kernel    *kernel
}

// WatchLinks watches the network namespace of the calling thread. The caller closes
// the watch.
func WatchLinks() (*Links, error) {
	namespace, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink socket: %w", err), namespace.Close())
	}
	l := &Links{namespace, &kernel{handle: handle}}
	if l.kernel.events, err = subscribe(unix.RTMGRP_LINK); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to link changes: %w", err), l.Close())
	}
	return l, nil
}

// Wait returns when an interface may have changed since the last call, or ctx is done.
func (l *Links) Wait(ctx context.Context) {
	_ = l.kernel.events.SetReadDeadline(time.Time{}) // the end of the last ctx may have set one
	l.kernel.wait(ctx)
	l.kernel.drain()
}

// Named says whether there is an interface with that name.
func (l *Links) Named(name string) (bool, error) {
	_, err := l.kernel.handle.LinkByName(name)
	return found(err)
}

// found returns false without an error if err says that there is no such interface.
func found(err error) (bool, error) {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) || errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return err == nil, err
}

// Inside calls f on a thread in the namespace, and returns its error.
func (l *Links) Inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		moved, err := l.move()
		if err == nil {
			err = f()
		}
		if !moved { // otherwise the thread ends with the goroutine
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// move moves the calling thread into the namespace unless it is there already. Moving needs
// CAP_SYS_ADMIN.
func (l *Links) move() (moved bool, err error) {
	here, err := netns.Get()
	if err != nil {
		return false, err
	}
	defer here.Close()
	if here.Equal(l.namespace) {
		return false, nil
	}
	if err := netns.Set(l.namespace); err != nil {
		return false, fmt.Errorf("enter the network namespace of the interface: %w", err)
	}
	return true, nil
}

// Close ends the watch.
func (l *Links) Close() error { return errors.Join(l.kernel.close(), l.namespace.Close()) }
