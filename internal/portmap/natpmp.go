package portmap

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// NAT-PMP's two exchanges (RFC 6886 §3.2, §3.3): one for the address, and one for
// the port.
//
//	0 version 0   1 opcode, 128 = response   2 result   4 epoch
//	8 address, or internal port, 10 external port, 12 lifetime
const (
	natpmpAddress    = 0
	natpmpMap        = 1
	natpmpAddressLen = 12
	natpmpMapLen     = 16
)

type natpmp struct{ port uint16 }

func (p natpmp) ask(ctx context.Context, r request) (Mapping, error) {
	gateway := netip.AddrPortFrom(r.gateway, p.port)
	var addr netip.Addr
	err := exchange(ctx, gateway, []byte{0, natpmpAddress}, func(b []byte) (done bool, err error) {
		addr, done, err = parseAddress(b)
		return done, err
	})
	if err != nil {
		return Mapping{}, err
	}
	b := []byte{0, natpmpMap, 0, 0}
	b = binary.BigEndian.AppendUint16(b, r.port)
	if r.lifetime > 0 {
		b = binary.BigEndian.AppendUint16(b, r.external.Port())
	} else {
		b = append(b, 0, 0) // RFC 6886 §3.4
	}
	b = binary.BigEndian.AppendUint32(b, uint32(r.lifetime/time.Second))
	m := Mapping{Protocol: NATPMP}
	err = exchange(ctx, gateway, b, func(b []byte) (done bool, err error) {
		var port uint16
		port, m.Lifetime, done, err = parsePort(b, r.port)
		m.External = netip.AddrPortFrom(addr, port)
		return done, err
	})
	return m, err
}

// response checks the header of both answers.
func response(b []byte, opcode byte, length int) (done bool, err error) {
	if len(b) < 4 || b[0] != 0 || b[1] != 1<<7|opcode {
		return false, nil
	}
	if result := binary.BigEndian.Uint16(b[2:]); result != 0 {
		return true, fmt.Errorf("%w: result %d", errResult, result)
	}
	return len(b) == length, nil
}

func parseAddress(b []byte) (netip.Addr, bool, error) {
	if done, err := response(b, natpmpAddress, natpmpAddressLen); err != nil || !done {
		return netip.Addr{}, done, err
	}
	return netip.AddrFrom4([4]byte(b[8:12])), true, nil
}

func parsePort(b []byte, internal uint16) (uint16, time.Duration, bool, error) {
	if done, err := response(b, natpmpMap, natpmpMapLen); err != nil || !done {
		return 0, 0, done, err
	}
	if binary.BigEndian.Uint16(b[8:]) != internal {
		return 0, 0, false, nil
	}
	return binary.BigEndian.Uint16(b[10:]), time.Duration(binary.BigEndian.Uint32(b[12:])) * time.Second, true, nil
}
