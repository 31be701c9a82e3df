// Package decap finds the UDP datagram in a captured frame. It skips link layers, VLAN
// tags, MPLS labels, PPPoE, IP options and extension headers, and looks into the tunnels
// GRE, IP in IP, VXLAN and Geneve. It does not allocate or copy.
package decap
