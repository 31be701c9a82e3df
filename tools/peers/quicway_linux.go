package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/quicway/quicway/cid"
	"github.com/quicway/quicway/internal/control"
	"github.com/quicway/quicway/internal/pki"
	"github.com/quicway/quicway/internal/test/nettest"
	"github.com/quicway/quicway/p2p"
)

// startQuicway returns a function that starts examples/relay with these arguments. Each flow is a session
// of two legs that have registered.
func startQuicway(args ...string) func(b *bed) error {
	return func(b *bed) error {
		program, err := b.compile("examples/relay")
		if err != nil {
			return err
		}
		out, err := b.serve(nil, program, append(args, "-listen", "0.0.0.0:"+strconv.Itoa(relayPort), "-host", relayToSender)...)
		if err != nil {
			return err
		}
		if !out.Scan() {
			return errors.New("the relay has ended")
		}
		url, err := p2p.ParseRelay(out.Text())
		if err != nil {
			return err
		}
		go func() {
			for out.Scan() { // what it prints at the end
			}
		}()
		for i := range b.shape.flows {
			begin, err := b.meet(i, url.Token)
			if err != nil {
				return fmt.Errorf("register flow %d: %w", i, err)
			}
			b.open(begin, toRelay)
		}
		return nil
	}
}

// meet registers both legs of a session, and returns what packets to the sink begin with.
func (b *bed) meet(flow int, token string) (begin []byte, err error) {
	session, key := control.NewSessionID(), cid.NewKey()
	dialer := control.Register{Role: control.Dialer, Key: cid.NewKey()}
	accepter := control.Register{Role: control.Accepter, Key: key}
	reply, err := register(b.ctx, b.sender, b.senderOf(flow), toRelay, session, &dialer, token)
	if err != nil {
		return nil, err
	}
	far := netip.AddrPortFrom(netip.MustParseAddr(relayToSink), relayPort)
	_, err = register(b.ctx, b.sink, b.sinkOf(flow), far, session, &accepter, reply.Join)
	return shortHeader(key), err
}

// register registers a leg from the address that it has.
func register(ctx context.Context, h *nettest.Host, from, relay netip.AddrPort, session control.SessionID, req *control.Register, token string) (reply control.Registered, err error) {
	conn := h.Listen(from.String())
	defer conn.Close()
	transport := &quic.Transport{Conn: conn, ConnectionIDGenerator: cid.NewGenerator(cid.NewKey(), cid.Relay, nil)}
	defer transport.Close()
	conf, err := clientTLS()
	if err != nil {
		return reply, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	qc, err := transport.Dial(ctx, net.UDPAddrFromAddrPort(relay), conf, nil)
	if err != nil {
		return reply, err
	}
	defer qc.CloseWithError(0, "")
	body, err := json.Marshal(req)
	if err != nil {
		return reply, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://relay"+fmt.Sprintf(control.LegsPath, session), bytes.NewReader(body))
	if err != nil {
		return reply, err
	}
	post.Header.Set("Authorization", control.Bearer+token)
	resp, err := (&http3.Transport{}).NewClientConn(qc).RoundTrip(post)
	if err != nil {
		return reply, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return reply, errors.Join(err, fmt.Errorf("status %d: %s", resp.StatusCode, text))
	}
	return reply, json.Unmarshal(text, &reply)
}

// clientTLS returns the configuration of a client with a new key. It is this program that has started
// the relay, so that it does not check who that is.
func clientTLS() (*tls.Config, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	cert, err := pki.SelfSigned(key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{http3.NextProtoH3}, Certificates: []tls.Certificate{cert}}, nil
}
