package splice

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// loopbackIndex is the index of the loopback interface in each network namespace.
const loopbackIndex = 1

// accurateECN is the bit of peekView.Ecn for Accurate ECN: TCP_ECN_MODE_ACCECN in
// include/net/tcp.h.
const accurateECN = 1 << 4

func refuse(why Reason, err error) *Refusal { return &Refusal{Reason: why, Err: err} }

// checkAddresses checks what the addresses of both connections say.
func checkAddresses(ends [2]tuple) *Refusal {
	var v6 [2]bool
	for i, e := range ends {
		for _, a := range []netip.Addr{e.local.Addr(), e.remote.Addr()} {
			switch {
			case !a.IsValid() || a.Zone() != "" || a.IsLinkLocalUnicast():
				return refuse(RefusedAddress, nil)
			case a.IsLoopback():
				return refuse(RefusedLoopback, nil)
			}
		}
		v6[i] = e.local.Addr().Is6()
	}
	if v6[0] != v6[1] {
		return refuse(RefusedFamily, nil)
	}
	return nil
}

// checkProtocol checks that a connection is plain TCP: a listener of package net accepts MPTCP by
// default.
func checkProtocol(c *net.TCPConn) *Refusal {
	protocol := 0
	err := control(c, func(fd int) (err error) {
		protocol, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
		return err
	})
	switch {
	case err != nil:
		return refuse(RefusedSocket, err)
	case protocol != unix.IPPROTO_TCP:
		return refuse(RefusedProtocol, nil)
	}
	return nil
}

// checkViews checks what the kernel knows of both sockets. attached has the interfaces of the
// program.
func checkViews(views *[2]peekView, attached map[uint32]*attachment) *Refusal {
	client, upstream := &views[fromClient], &views[fromUpstream]
	for _, v := range []*peekView{client, upstream} {
		switch {
		case v.Found == 0:
			return refuse(RefusedMissing, nil)
		case v.State != established:
			return refuse(RefusedState, nil)
		case v.Protected != 0:
			return refuse(RefusedProtected, nil)
		case v.Usec != 0:
			return refuse(RefusedTimestamps, nil)
		case v.Ecn&accurateECN != 0:
			return refuse(RefusedECN, nil)
		case v.OutIfindex == loopbackIndex || v.InIfindex == loopbackIndex:
			return refuse(RefusedLoopback, nil)
		case attached[v.OutIfindex] == nil || v.InIfindex != 0 && attached[v.InIfindex] == nil:
			return refuse(RefusedInterface, nil)
		}
	}
	switch {
	case client.Timestamps != upstream.Timestamps:
		return refuse(RefusedTimestamps, nil)
	case client.Sack != upstream.Sack:
		return refuse(RefusedSACK, nil)
	case client.Restored != upstream.Restored:
		return refuse(RefusedState, nil) // nobody knows where the streams of both are alike
	case client.Advmss > upstream.Mss || upstream.Advmss > client.Mss:
		return refuse(RefusedMSS, nil)
	}
	return nil
}
