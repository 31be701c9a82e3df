package sni

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// openFunc opens the kernel path. The error wraps errNoKernel if connections have to stay in
// userspace, and ErrConfig if the configuration is wrong.
type openFunc func(*Splice, *slog.Logger) (kernelPath, error)

// openSplicer opens the kernel path, if there is a Config.Splice. The error wraps ErrConfig.
func (s *Server) openSplicer(open openFunc) error {
	conf := s.conf.Splice
	if conf == nil || s.listener == nil {
		return nil
	}
	kernel, err := open(conf, s.log)
	switch {
	case errors.Is(err, errNoKernel):
		s.spliceOff = err.Error()
		s.log.Warn("the kernel relays no connections", "err", err)
		return nil
	case err != nil:
		return err
	}
	s.splicer = newSplicer(conf, kernel, s.log)
	if conf.Method == TCX {
		if err := s.announceSizes(); err != nil {
			return errors.Join(err, kernel.close())
		}
	}
	s.adopt()
	return nil
}

// announceSizes bounds the segments that both sides of a connection get, so that those of one
// fit the other.
func (s *Server) announceSizes() error {
	mtus, err := mtusOf(s.conf.Splice.Interfaces)
	if err != nil {
		return err
	}
	sizes := maxSegsFor(mtus, s.conf.Splice.MaxSegment)
	s.dialer.ControlContext = sizes.control
	v4only := s.listener.Addr().(*net.TCPAddr).IP.To4() != nil
	raw, err := s.listener.SyscallConn()
	if err == nil {
		err = setMaxSeg(raw, sizes.ofListener(v4only))
	}
	if err != nil { // connections whose sizes differ will stay in userspace
		s.log.Warn("the listener's maximum segment size was not set", "err", err)
	}
	return nil
}

// mtusOf returns the MTUs of interfaces. The error wraps ErrConfig: there is no such interface.
func mtusOf(names []string) (mtus []int, err error) {
	for _, name := range names {
		i, err := net.InterfaceByName(name)
		if err != nil {
			return nil, fmt.Errorf("%w: Splice.Interfaces: %q: %w", ErrConfig, name, err)
		}
		mtus = append(mtus, i.MTU)
	}
	return mtus, nil
}

// close releases the kernel path. No connections are left.
func (s *splicer) close() error {
	if s == nil {
		return nil
	}
	return s.kernel.close()
}
