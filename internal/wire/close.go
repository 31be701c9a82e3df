package wire

import (
	"crypto/tls"
	"fmt"
	"strings"
)

// Close is a CONNECTION_CLOSE frame (RFC 9000 §19.19).
type Close struct {
	// Application says that the application has closed the connection. In an Initial its own code
	// is replaced by APPLICATION_ERROR (RFC 9000 §10.2.3).
	Application bool
	Code        uint64
	// Reason is the reason phrase. It is part of the payload that the frame was read from.
	Reason []byte
}

// appError is APPLICATION_ERROR (RFC 9000 §20.1).
const appError = 0x0c

// FindClose returns the first CONNECTION_CLOSE frame in the payload of an Initial of d. It reads
// none of drafts before 25, in which codes had another length.
func (d Dialect) FindClose(payload []byte) (c Close, ok bool) {
	switch d {
	case DialectV1, DialectV2, DraftV2, Draft29, Draft25:
	default:
		return Close{}, false
	}
	r := reader{payload}
	for r.skipPadding(); len(r.b) > 0; r.skipPadding() {
		kind, ok := r.varint()
		switch {
		case !ok:
			return Close{}, false
		case kind == frameConnClose || kind == frameAppClose:
			return r.close(kind)
		case kind == frameCrypto:
			if _, ok := r.crypto(); !ok {
				return Close{}, false
			}
		case r.skip(kind) != nil:
			return Close{}, false
		}
	}
	return Close{}, false
}

// close reads what follows the type of a CONNECTION_CLOSE frame.
func (r *reader) close(kind uint64) (c Close, ok bool) {
	if c.Code, ok = r.varint(); !ok {
		return Close{}, false
	}
	if kind == frameConnClose && !r.varints(1) { // the type of the frame that was wrong
		return Close{}, false
	}
	if c.Reason, ok = r.bytes(); !ok {
		return Close{}, false
	}
	c.Application = kind == frameAppClose || c.Code == appError
	return c, true
}

// codeNames are the transport error codes from 0 on (RFC 9000 §20.1).
var codeNames = [...]string{
	"NO_ERROR", "INTERNAL_ERROR", "CONNECTION_REFUSED", "FLOW_CONTROL_ERROR", "STREAM_LIMIT_ERROR",
	"STREAM_STATE_ERROR", "FINAL_SIZE_ERROR", "FRAME_ENCODING_ERROR", "TRANSPORT_PARAMETER_ERROR",
	"CONNECTION_ID_LIMIT_ERROR", "PROTOCOL_VIOLATION", "INVALID_TOKEN", "APPLICATION_ERROR",
	"CRYPTO_BUFFER_EXCEEDED", "KEY_UPDATE_ERROR", "AEAD_LIMIT_REACHED", "NO_VIABLE_PATH",
}

// Name returns the registered name of the code, or "" if it has none. A TLS alert has the name
// CRYPTO_ERROR and the name of the alert.
func (c *Close) Name() string {
	switch {
	case c.Code < uint64(len(codeNames)):
		return codeNames[c.Code]
	case c.Code == 0x11: // RFC 9368 §7
		return "VERSION_NEGOTIATION_ERROR"
	case c.Code>>8 == 1: // RFC 9001 §4.8
		alert := tls.AlertError(c.Code & 0xff).Error()
		return fmt.Sprintf("CRYPTO_ERROR (%s)", strings.TrimPrefix(alert, "tls: "))
	}
	return ""
}
