// Command turn is a TURN server of pion/turn, and a client that opens channels of a TURN server, for
// tools/peers.
//
//	turn server LISTEN RELAY-IP
//	turn client SERVER FROM TO FLOWS SIZE
//
// FROM and TO are addresses of the first flow; the others have the ports after these. The client
// prints for each flow what packets of a size begin with, in hexadecimal.
package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"github.com/pion/logging"
	"github.com/pion/turn/v4"
)

const user, password, realm = "user", "password", "realm"

func main() {
	var err error
	switch args := os.Args; {
	case len(args) == 4 && args[1] == "server":
		err = serve(args[2], args[3])
	case len(args) == 7 && args[1] == "client":
		err = openAll(args[2], args[3], args[4], args[5], args[6])
	default:
		err = errors.New("usage: see the source")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "turn:", err)
		os.Exit(1)
	}
}

func serve(listen, relay string) error {
	conn, err := net.ListenPacket("udp4", listen)
	if err != nil {
		return err
	}
	_, err = turn.NewServer(turn.ServerConfig{
		Realm: realm,
		AuthHandler: func(string, string, net.Addr) ([]byte, bool) {
			return turn.GenerateAuthKey(user, realm, password), true
		},
		PacketConnConfigs: []turn.PacketConnConfig{{
			PacketConn:            conn,
			RelayAddressGenerator: &turn.RelayAddressGeneratorStatic{RelayAddress: net.ParseIP(relay), Address: "0.0.0.0"},
		}},
	})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	select {}
}

func openAll(server, from, to, flows, size string) error {
	n, err := strconv.Atoi(flows)
	if err != nil {
		return err
	}
	length, err := strconv.Atoi(size)
	if err != nil {
		return err
	}
	local, err := netip.ParseAddrPort(from)
	if err != nil {
		return err
	}
	peer, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	for i := range uint16(n) {
		number, err := open(server, after(local, i), after(peer, i))
		if err != nil {
			return fmt.Errorf("flow %d: %w", i, err)
		}
		begin := binary.BigEndian.AppendUint16(nil, number) // RFC 8656 §12.4
		fmt.Printf("%x\n", binary.BigEndian.AppendUint16(begin, uint16(length-4)))
	}
	return nil
}

func after(addr netip.AddrPort, n uint16) *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr.Addr(), addr.Port()+n))
}

// open makes an allocation with a channel to a peer, and returns the channel's number. The
// allocation lasts for ten minutes, also without this program.
func open(server string, from, to *net.UDPAddr) (uint16, error) {
	conn, err := net.ListenUDP("udp4", from)
	if err != nil {
		return 0, err
	}
	watched := &channelConn{PacketConn: conn, number: make(chan uint16, 1)}
	logs := logging.NewDefaultLoggerFactory()
	logs.DefaultLogLevel = logging.LogLevelDisabled
	client, err := turn.NewClient(&turn.ClientConfig{
		STUNServerAddr: server, TURNServerAddr: server, Conn: watched,
		Username: user, Password: password, Realm: realm, LoggerFactory: logs,
	})
	if err != nil {
		return 0, err
	}
	if err := client.Listen(); err != nil {
		return 0, err
	}
	relayed, err := client.Allocate()
	if err != nil {
		return 0, err
	}
	for range 100 { // until the channel is there, packets are indications
		if _, err := relayed.WriteTo([]byte("hello"), to); err != nil {
			return 0, err
		}
		select {
		case number := <-watched.number:
			return number, conn.Close()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return 0, errors.New("the server opens no channel")
}

// channelConn says of which channel the first message is that is written to it.
type channelConn struct {
	net.PacketConn
	number chan uint16
}

func (c *channelConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if len(b) > 4 && b[0]&0xc0 == 0x40 {
		select {
		case c.number <- binary.BigEndian.Uint16(b):
		default:
		}
	}
	return c.PacketConn.WriteTo(b, to)
}
