package splice

import (
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPortStaysTaken checks that nobody gets the port of a connection to the upstream while its
// sockets are replaced. The relay has one port, so that another connection to the upstream, as a
// relay opens them all the time, can only get that one.
func TestPortStaysTaken(t *testing.T) {
	t.Parallel()
	families(t, func(t *testing.T, v6 bool) {
		l := newLab(t, v6, nil)
		l.relay.Sysctl("net/ipv4/ip_local_port_range", "40000 40000")
		c, s := l.connect(), newStreams()
		stop, dialed := make(chan struct{}), make(chan error)
		go func() {
			dialed <- l.relay.Run(func() error { return dialUntil(stop, l.addr("10.2.0.1", "fd00:2::1")) })
		}()
		for range 20 {
			pair := c.take()
			c.mustExchange(s, 1000)
			c.takeBack(pair)
		}
		close(stop)
		if err := <-dialed; err != nil {
			t.Error(err)
		}
		c.mustExchange(s, 1000)
	})
}

// dialUntil opens connections until stop is closed. It returns an error if it can open one.
func dialUntil(stop <-chan struct{}, addr string) error {
	d := net.Dialer{Timeout: time.Second}
	d.SetMultipathTCP(false)
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		c, err := d.Dial("tcp", addr)
		if err == nil {
			return errors.Join(fmt.Errorf("a connection got the port of another one: %v", c.LocalAddr()), c.Close())
		}
		if !errors.Is(err, unix.EADDRNOTAVAIL) {
			return err
		}
	}
}
