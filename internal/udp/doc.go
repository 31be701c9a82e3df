// Package udp moves many UDP packets with few system calls, and lets several
// QUIC transports share one socket.
//
// A [Socket] reads and writes batches of messages. Where the kernel can
// (Linux), a batch is one recvmmsg or sendmmsg, a message may be a train of
// datagrams of one flow (UDP_GRO, UDP_SEGMENT), and each tells which of our
// addresses it came to and its ECN mark. Over anything else than a UDP socket
// of the kernel, as the in-process networks of tests, the same type moves
// packet by packet.
//
// A [Conn] is a virtual net.PacketConn for one quic.Transport. It gets what it
// is handed, and what it writes goes where its owner wants.
package udp
