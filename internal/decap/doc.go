// Package decap finds the UDP datagram in a captured frame: below whatever
// link layer, VLAN tags, MPLS labels, PPPoE, IP options and extension headers,
// and in the tunnels GRE, IP in IP, VXLAN and Geneve. It allocates nothing and
// copies nothing. A frame that holds no datagram gives a [Reason].
package decap
