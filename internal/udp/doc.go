// Package udp sends and receives many UDP packets with few system calls, and lets several
// QUIC transports share one socket.
//
// A [Socket] reads and writes batches of messages. A [Message] is one datagram, or a train:
// several datagrams of the same size, to or from the same address. On Linux a batch is one
// recvmmsg or sendmmsg call, the kernel receives and sends trains as one message (UDP_GRO,
// UDP_SEGMENT), and a received message has the local address that it came to and its ECN
// mark. On other systems, and on conns that are not UDP sockets, such as those of the
// in-process networks of tests, a Socket handles packets one by one.
//
// A [Conn] is a virtual net.PacketConn for one quic.Transport. Its owner hands it the packets
// that the transport reads, and gets the packets that the transport writes.
package udp
