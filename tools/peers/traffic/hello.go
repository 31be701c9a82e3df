package traffic

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// The kinds of ClientHellos.
const (
	quicHello  = iota // as of quic-go, in two packets
	shortHello        // of QUIC, without a key for X25519MLKEM768, in one packet
	tcpHello
	helloKinds
)

// placeholder is the server name in a hello before it gets another one, which is as long.
const placeholder = "c000000" + NameSuffix

// hello is a ClientHello of crypto/tls, and where that differs between connections.
type hello struct {
	message []byte
	name    int      // where the server name begins
	random  [][2]int // from where to where are random bytes, and keys
}

// newHello has crypto/tls make a ClientHello.
func newHello(kind int) (*hello, error) {
	conf := &tls.Config{ServerName: placeholder, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}
	h := new(hello)
	var err error
	if kind == tcpHello {
		conf.NextProtos = []string{"h2", "http/1.1"}
		h.message, err = overTCP(conf)
	} else {
		conf.NextProtos = []string{"h3"}
		if kind == shortHello {
			conf.CurvePreferences = []tls.CurveID{tls.X25519}
		}
		h.message, err = overQUIC(conf)
	}
	if err != nil {
		return nil, err
	}
	return h, h.find()
}

func overQUIC(conf *tls.Config) ([]byte, error) {
	c := tls.QUICClient(&tls.QUICConfig{TLSConfig: conf})
	defer c.Close()
	// max_idle_timeout, initial_max_data, initial_max_stream_data_bidi_local, initial_max_streams_bidi
	// (RFC 9000 §18.2), and initial_source_connection_id, which nobody compares.
	c.SetTransportParameters([]byte{1, 4, 0x80, 0, 0x75, 0x30, 4, 4, 0x80, 0xc, 0, 0, 5, 4, 0x80, 8, 0, 0, 8, 2, 0x40, 100, 15, 4, 0, 0, 0, 0})
	if err := c.Start(context.Background()); err != nil {
		return nil, err
	}
	var message []byte
	for e := c.NextEvent(); e.Kind != tls.QUICNoEvent; e = c.NextEvent() {
		if e.Kind == tls.QUICWriteData {
			message = append(message, e.Data...)
		}
	}
	return message, nil
}

func overTCP(conf *tls.Config) ([]byte, error) {
	near, far := net.Pipe()
	defer far.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Client(near, conf).Handshake() }()
	var record [5]byte
	if _, err := io.ReadFull(far, record[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(record[3:]))
	_, err := io.ReadFull(far, message)
	far.Close()
	<-done // an error, for nobody answers
	return message, err
}

// find finds what differs between connections (RFC 8446 §4.1.2).
func (h *hello) find() error {
	const random, session = 6, 38
	at := bytes.Index(h.message, []byte(placeholder))
	if at < 0 || len(h.message) < session+1 {
		return errors.New("it has no server name")
	}
	h.name = at
	h.random = [][2]int{{random, session}, {session + 1, session + 1 + int(h.message[session])}}
	const keyShare, head = 51, 4
	for at = h.extensions(); at+head <= len(h.message); {
		kind, length := h.number(at), h.number(at+2)
		if at += head; kind == keyShare {
			return h.keys(at+2, at+length)
		}
		at += length
	}
	return errors.New("it has no key share")
}

// number returns a number of two bytes.
func (h *hello) number(at int) int { return int(binary.BigEndian.Uint16(h.message[at:])) }

// extensions returns where the extensions begin.
func (h *hello) extensions() int {
	at := h.random[1][1]
	at += 2 + h.number(at)       // ciphers
	at += 1 + int(h.message[at]) // compression
	return at + 2
}

// keys finds the keys of a key_share extension (RFC 8446 §4.2.8).
func (h *hello) keys(at, end int) error {
	for at < end {
		length := h.number(at + 2)
		h.random = append(h.random, [2]int{at + 4, at + 4 + length})
		at += 4 + length
	}
	if at != end || end > len(h.message) {
		return errors.New("its key shares are not understood")
	}
	return nil
}

// hello returns the ClientHello of a new connection, and where its name begins.
func (g *generator) hello(kind int, name string) (message []byte, at int) {
	h := g.hellos[kind]
	message = bytes.Clone(h.message)
	for _, part := range h.random {
		copy(message[part[0]:part[1]], g.bytes(part[1]-part[0]))
	}
	copy(message[h.name:h.name+len(placeholder)], name)
	return message, h.name
}

// quicName and tcpName return the name of a flow.
func (g *generator) quicName() string { return fmt.Sprintf("c%06d"+NameSuffix, g.content.Connections) }
func (g *generator) tcpName() string  { return fmt.Sprintf("t%07d.tcp.example", g.opened) }
