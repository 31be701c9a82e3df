package sni

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/pires/go-proxyproto"

	"github.com/quicway/quicway/internal/hello"
)

// Hello is what a connection begins with.
type Hello struct {
	// Client and Server are the addresses that the client uses: those of the
	// connection, or those in the PROXY protocol header.
	Client, Server netip.AddrPort
	// TLS reports whether the connection begins with a ClientHello. If not, ServerName,
	// ALPN and ECH are empty.
	TLS bool
	// ServerName is the name in the server_name extension (RFC 6066 §3), in lower case
	// and without a dot at its end. It comes from the client, unchecked.
	ServerName string
	// ALPN lists the protocols that the client offers (RFC 7301), at most the first 16.
	ALPN []string
	// ECH reports whether the ClientHello has an encrypted_client_hello extension.
	// ServerName is then the outer name. Some clients send the extension without using
	// it (GREASE).
	ECH bool
	// QUICVersion is the version of the client's first QUIC packet (RFC 9000 §15). 0: the
	// connection is one of TLS over TCP. If the version is not known, TLS is false.
	QUICVersion uint32
}

// maxName is the maximum length of a server name (RFC 1035 §2.3.4, with a dot at its end).
const maxName = 254

// readers has buffers for the beginnings of connections.
var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, hello.MaxStream) }}

// refusal is why a connection gets no upstream.
type refusal struct {
	reason Failure
	err    error
}

func (e *refusal) Error() string { return e.reason.String() + ": " + e.err.Error() }

func (e *refusal) Unwrap() error { return e.err }

// countingReader counts the bytes that are read.
type countingReader struct {
	io.Reader
	n uint64
}

func (r *countingReader) Read(b []byte) (int, error) {
	n, err := r.Reader.Read(b)
	r.n += uint64(n)
	return n, err
}

// readProxy reads a PROXY protocol header, and replaces the addresses of h.
func readProxy(r *bufio.Reader, h *Hello) error {
	header, err := proxyproto.Read(r)
	if err != nil {
		return &refusal{ProxyHeader, err}
	}
	src, dst, ok := header.TCPAddrs()
	if header.Command.IsLocal() || !ok {
		return nil // the balancer's own connection, or one that it knows nothing about
	}
	h.Client, h.Server = plain(src.AddrPort()), plain(dst.AddrPort())
	return nil
}

// readHello reads a ClientHello and sets h. The bytes stay in the buffer of r. There is
// no error if the stream is not TLS.
func readHello(r *bufio.Reader, h *Hello) error {
	var records hello.Records
	for n := 1; ; n = r.Buffered() + 1 {
		if _, err := r.Peek(min(n, hello.MaxStream)); err != nil {
			return &refusal{readFailure(err), err}
		}
		stream, _ := r.Peek(r.Buffered())
		if err := parseHello(&records, stream, h); !errors.Is(err, hello.ErrMore) {
			return err
		}
	}
}

// parseHello sets h if a stream, of which all bytes so far are given, begins with a ClientHello
// or is not TLS. It returns hello.ErrMore if there has to be more, and another error, which is a
// refusal, if the ClientHello is not valid.
func parseHello(records *hello.Records, stream []byte, h *Hello) error {
	msg, err := records.Next(stream)
	switch {
	case errors.Is(err, hello.ErrMore):
		return hello.ErrMore
	case errors.Is(err, hello.ErrNotTLS):
		return nil
	case errors.Is(err, hello.ErrTooLong):
		return &refusal{HelloTooLong, err}
	case err != nil:
		return &refusal{HelloInvalid, err}
	}
	if err := h.parse(msg); err != nil {
		return &refusal{HelloInvalid, err}
	}
	return nil
}

// maxALPN is the number of protocols that are kept of a client, for as long as its connection
// lasts. A ClientHello may list 16 000.
const maxALPN = 16

// parse sets h from a ClientHello.
func (h *Hello) parse(msg []byte) error {
	client, err := hello.ParseClient(msg)
	switch {
	case err != nil:
		return err
	case len(client.ServerName) > maxName:
		return errName
	}
	h.TLS, h.ECH = true, client.ECH
	h.ALPN = slices.Clone(client.ALPN[:min(len(client.ALPN), maxALPN)])
	h.ServerName = strings.ToLower(strings.TrimSuffix(client.ServerName, "."))
	return nil
}

// readFailure returns the reason for an error of a read.
func readFailure(err error) Failure {
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return HelloTimeout
	case errors.Is(err, io.EOF):
		return HelloEnded
	}
	return HelloReset
}
