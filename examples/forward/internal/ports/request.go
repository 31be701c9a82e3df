package ports

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
)

// A stream begins with a line of the side that has opened it:
//
//	connect tcp|udp TARGET         connect to the target, and relay
//	listen tcp|udp ADDRESS TARGET  listen there while the stream is open, and connect to the target from here
//
// The other side answers with one line:
//
//	ok ADDRESS     connected from there, or listening there
//	error REASON   and the end of the stream
const maxLine = 512

// requestPatience is how long a stream may be open before its line has arrived.
const requestPatience = 10 * time.Second

// answerPatience is how long the peer may take to answer. It has to dial, perhaps while the
// connection finds another path.
const answerPatience = time.Minute

// request is a parsed first line. Without a listen address it is a request to connect.
type request struct{ Spec }

func (r *request) line() string {
	if r.Listen == "" {
		return "connect " + r.Network + " " + r.Target + "\n"
	}
	return "listen " + r.Network + " " + r.Listen + " " + r.Target + "\n"
}

// parseRequest parses a peer's line.
func parseRequest(line string) (*request, error) {
	fields := strings.Split(line, " ")
	r := &request{}
	switch {
	case len(fields) == 3 && fields[0] == "connect":
		r.Network, r.Target = fields[1], fields[2]
		if r.Network != "tcp" && r.Network != "udp" {
			return nil, fmt.Errorf("unknown network %q", r.Network)
		}
		return r, checkTarget(r.Target)
	case len(fields) == 4 && fields[0] == "listen":
		r.Network, r.Listen, r.Target = fields[1], fields[2], fields[3]
		return r, r.check()
	}
	return nil, fmt.Errorf("unknown request %q", line)
}

// peerError is why the peer could not do what it was asked for.
type peerError struct{ Reason string }

func (e *peerError) Error() string { return "the peer: " + e.Reason }

// writeAnswer answers a request.
func writeAnswer(w io.Writer, addr net.Addr, err error) error {
	answer := "error " + reason(err) + "\n"
	if err == nil {
		answer = "ok " + addr.String() + "\n"
	}
	_, err = io.WriteString(w, answer)
	return err
}

// reason is the part of an error that says something to the other side.
func reason(err error) string {
	if err == nil {
		return ""
	}
	var op *net.OpError
	if errors.As(err, &op) {
		var call *os.SyscallError
		if cause := op.Err; errors.As(cause, &call) {
			err = fmt.Errorf("%s %v: %w", op.Op, op.Addr, call.Err)
		}
	}
	return printable(err.Error())
}

// printable makes one line of what may be a peer's text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), maxLine-10)]
}

// readAnswer reads the peer's answer, and returns its address.
func readAnswer(r io.Reader) (string, error) {
	line, err := readLine(r)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return "", &peerError{"it has not answered in time"}
	} else if err != nil {
		return "", fmt.Errorf("no answer of the peer: %w", err)
	}
	if addr, ok := strings.CutPrefix(line, "ok "); ok {
		return printable(addr), nil
	}
	text, ok := strings.CutPrefix(line, "error ")
	if !ok {
		return "", &peerError{fmt.Sprintf("unknown answer %q", line)}
	}
	return "", &peerError{printable(text)}
}

// awaitAnswer is readAnswer, but does not wait forever.
func awaitAnswer(stream *quic.Stream) (string, error) {
	_ = stream.SetReadDeadline(time.Now().Add(answerPatience))
	defer func() { _ = stream.SetReadDeadline(time.Time{}) }()
	return readAnswer(stream)
}

// readLine reads a line, and not a byte beyond it.
func readLine(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < maxLine; {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("the line is too long")
}
