// Package tcptest has the ends of TCP connections for tests of relays, and a relay. A
// [Server] and its clients send each other random bytes and check each byte that arrives.
// The [Relay] copies between them in userspace, until a test hands a connection to what it
// tests.
package tcptest
