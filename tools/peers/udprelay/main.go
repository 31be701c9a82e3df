// Command udprelay is a server of Tailscale's net/udprelay, and a client that shakes hands with
// it, for tools/peers.
//
//	udprelay server ADDRESS FLOWS
//	udprelay client SIDE SERVER FROM
//
// The server prints a line for each flow, which the client of each side, 0 or 1, reads. FROM is the
// address of the first flow; the others have the ports after that. The client prints for each
// flow what packets begin with, in hexadecimal. The keys are not secret.
package main

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"go4.org/mem"
	"tailscale.com/disco"
	"tailscale.com/net/packet"
	"tailscale.com/net/udprelay"
	"tailscale.com/types/key"
	"tailscale.com/types/views"
	"tailscale.com/util/usermetric"
)

func main() {
	var err error
	switch args := os.Args; {
	case len(args) == 4 && args[1] == "server":
		err = serve(args[2], args[3])
	case len(args) == 5 && args[1] == "client":
		err = shakeAll(args[2], args[3], args[4])
	default:
		err = errors.New("usage: see the source")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "udprelay:", err)
		os.Exit(1)
	}
}

// keyOf returns the key of a side of a flow.
func keyOf(flow, side int) key.DiscoPrivate {
	sum := sha256.Sum256(fmt.Appendf(nil, "flow %d, side %d", flow, side))
	return key.DiscoPrivateFromRaw32(mem.B(sum[:]))
}

func serve(address, flows string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(flows)
	if err != nil {
		return err
	}
	s, err := udprelay.NewServer(func(string, ...any) {}, at.Port(), true, new(usermetric.Registry), nil)
	if err != nil {
		return err
	}
	s.SetStaticAddrPorts(views.SliceOf([]netip.AddrPort{at}))
	for flow := range n {
		e, err := s.AllocateEndpoint(keyOf(flow, 0).Public(), keyOf(flow, 1).Public())
		if err != nil {
			return err
		}
		text, err := e.ServerDisco.MarshalText()
		if err != nil {
			return err
		}
		fmt.Printf("%d %s\n", e.VNI, text)
	}
	fmt.Println("ready")
	select {}
}

func shakeAll(sideText, server, from string) error {
	side, err := strconv.Atoi(sideText)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(server)
	if err != nil {
		return err
	}
	local, err := netip.ParseAddrPort(from)
	if err != nil {
		return err
	}
	flow := 0
	for in := bufio.NewScanner(os.Stdin); in.Scan(); flow++ {
		var vni uint32
		var text string
		if _, err := fmt.Sscan(in.Text(), &vni, &text); err != nil {
			return err
		}
		e := &end{vni: vni, own: keyOf(flow, side), other: keyOf(flow, 1-side).Public()}
		if err := e.server.UnmarshalText([]byte(text)); err != nil {
			return err
		}
		at := netip.AddrPortFrom(local.Addr(), local.Port()+uint16(flow))
		if err := e.bind(at, to); err != nil {
			return fmt.Errorf("flow %d: %w", flow, err)
		}
		begin := make([]byte, packet.GeneveFixedHeaderLength)
		if err := e.header(packet.GeneveProtocolWireGuard, false).Encode(begin); err != nil {
			return err
		}
		fmt.Printf("%x\n", begin)
	}
	return nil
}

// end is one end of a flow.
type end struct {
	conn   *net.UDPConn
	vni    uint32
	own    key.DiscoPrivate
	other  key.DiscoPublic
	server key.DiscoPublic
}

func (e *end) header(protocol uint16, control bool) *packet.GeneveHeader {
	h := &packet.GeneveHeader{Control: control, Protocol: protocol}
	h.VNI.Set(e.vni)
	return h
}

// bind shakes hands: the server binds this end to the address from.
func (e *end) bind(from, to netip.AddrPort) (err error) {
	if e.conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to)); err != nil {
		return err
	}
	defer e.conn.Close()
	common := disco.BindUDPRelayEndpointCommon{VNI: e.vni, Generation: 1, RemoteKey: e.other}
	if err := e.send(&disco.BindUDPRelayEndpoint{BindUDPRelayEndpointCommon: common}); err != nil {
		return err
	}
	challenge, err := e.receive()
	if err != nil {
		return err
	}
	answer := &disco.BindUDPRelayEndpointAnswer{BindUDPRelayEndpointCommon: common}
	answer.Challenge = challenge.Challenge
	return e.send(answer)
}

func (e *end) send(m disco.Message) error {
	b := make([]byte, packet.GeneveFixedHeaderLength, 512)
	if err := e.header(packet.GeneveProtocolDisco, true).Encode(b); err != nil {
		return err
	}
	b = e.own.Public().AppendTo(append(b, disco.Magic...))
	_, err := e.conn.Write(append(b, e.own.Shared(e.server).Seal(m.AppendMarshal(nil))...))
	return err
}

func (e *end) receive() (*disco.BindUDPRelayEndpointChallenge, error) {
	b := make([]byte, 2048)
	if err := e.conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	n, err := e.conn.Read(b)
	if err != nil {
		return nil, err
	}
	const header = packet.GeneveFixedHeaderLength + len(disco.Magic) + key.DiscoPublicRawLen
	if n < header {
		return nil, errors.New("the server's message is too short")
	}
	text, ok := e.own.Shared(e.server).Open(b[header:n])
	if !ok {
		return nil, errors.New("the server's message cannot be opened")
	}
	m, err := disco.Parse(text)
	if err != nil {
		return nil, err
	}
	challenge, ok := m.(*disco.BindUDPRelayEndpointChallenge)
	if !ok {
		return nil, fmt.Errorf("the server has sent %T", m)
	}
	return challenge, nil
}
