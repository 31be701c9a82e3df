// Package hello parses the messages that TLS 1.3 sends in the clear, ClientHello and
// ServerHello (RFC 8446 §4.1), and computes the JA4 fingerprint of a ClientHello. It parses
// the first message of Google QUIC as well, the CHLO. Messages are not trusted: those that
// are cut or invalid are [ErrInvalid].
package hello
