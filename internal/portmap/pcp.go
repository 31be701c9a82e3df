package portmap

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// The MAP request and response of PCP (RFC 6887 §7.1, §7.2, §11.1):
//
//	 0 version 2        1 opcode, 128 = response   3 result
//	 4 lifetime         8 request: client address  8 response: epoch
//	24 nonce           36 protocol                40 internal port
//	42 external port   44 external address        60 options: none
//
// The epoch is ignored: it shows that a gateway has lost its mappings, but the request
// whose answer shows it has just made the mapping again.
const (
	pcpVersion  = 2
	pcpMap      = 1
	pcpResponse = 1 << 7
	pcpUDP      = 17
	pcpMapLen   = 60
)

var errResult = errors.New("gateway refuses")

type pcp struct{ port uint16 }

func (p pcp) ask(ctx context.Context, r request) (Mapping, error) {
	var m Mapping
	err := exchange(ctx, netip.AddrPortFrom(r.gateway, p.port), appendMap(nil, r), func(b []byte) (done bool, err error) {
		m, done, err = parseMap(b, r)
		return done, err
	})
	return m, err
}

func appendMap(b []byte, r request) []byte {
	b = append(b, pcpVersion, pcpMap, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.lifetime/time.Second))
	client := r.local.As16() // IPv4-mapped
	b = append(b, client[:]...)
	b = append(b, r.nonce[:]...)
	b = append(b, pcpUDP, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, r.port)
	b = binary.BigEndian.AppendUint16(b, r.external.Port())
	external := netip.IPv4Unspecified().As16()
	if r.external.IsValid() {
		external = r.external.Addr().As16()
	}
	return append(b, external[:]...)
}

// parseMap reads an answer. done is false if b is not the answer to r.
func parseMap(b []byte, r request) (m Mapping, done bool, err error) {
	if len(b) < 4 || len(b) > maxResponse {
		return Mapping{}, false, nil
	}
	if b[0] != pcpVersion && b[1] == pcpResponse { // NAT-PMP's "unsupported version" (RFC 6887 §9)
		return Mapping{}, true, fmt.Errorf("%w: it speaks version %d", errResult, b[0])
	}
	if len(b) < pcpMapLen || len(b)%4 != 0 || b[0] != pcpVersion || b[1] != pcpResponse|pcpMap ||
		[12]byte(b[24:36]) != r.nonce || b[36] != pcpUDP || binary.BigEndian.Uint16(b[40:]) != r.port {
		return Mapping{}, false, nil
	}
	if b[3] != 0 {
		return Mapping{}, true, fmt.Errorf("%w: result %d", errResult, b[3])
	}
	addr := netip.AddrFrom16([16]byte(b[44:60])).Unmap()
	return Mapping{
		External: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(b[42:])),
		Lifetime: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Second,
		Protocol: PCP,
	}, true, nil
}
