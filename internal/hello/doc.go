// Package hello reads what TLS 1.3 sends in the clear, ClientHello and
// ServerHello (RFC 8446 §4.1), and makes the JA4 fingerprint of the former.
// Nothing here trusts a message: whatever is cut short or does not add up is
// ErrInvalid, never a panic.
package hello
