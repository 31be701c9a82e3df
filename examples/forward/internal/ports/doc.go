// Package ports makes TCP and UDP ports of one host reachable at another, over a connection
// between two peers.
//
// Each TCP connection and each UDP flow is one stream, which begins with a line that says what
// it is for (request.go). A TCP connection and its stream have the same end: half-closes and
// resets go from one to the other (tcp.go). UDP datagrams travel in QUIC datagrams (RFC 9221),
// which begin with the ID of their flow's stream (udp.go).
package ports
