// Package xdp loads the kernel's part of Quicway on Linux: one XDP program, which does for
// packages relay, quota and monitor what they have decided, before a packet reaches a socket.
// The program passes every packet that it is not sure of.
//
//	program, err := xdp.Load(&xdp.Config{Stages: []xdp.Stage{xdp.RelayStage, xdp.QuotaStage}})
//	mode, err := program.Attach("eth0", xdp.Auto)
//
// Give the [Program] to relay.Config, to quota.Config, or to monitor.Kernel: each uses its own
// stage of the program.
//
// # Requirements
//
// Linux 6.1, CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON. From Linux 6.18 on the program also loads
// without CAP_PERFMON, but needs more than twice the time for a packet, because the kernel
// guards such programs against speculation. These are the oldest versions that the program is
// tested on: docs/kernels.md has the table. If the kernel refuses a stage, [Load] leaves the
// stage out and logs why: see [Program.StageErr]. Load returns [ErrUnsupported] if the kernel
// refuses all stages, and on other systems.
//
// # The relay stage
//
// The relay stage forwards UDP packets over IPv4 and IPv6 that have a short QUIC header with a
// connection ID of a leg, if they come from the other leg of the session and to the address of
// the relay that this leg uses. The next hop comes from the kernel's routing table, which the
// program asks about once a second for each leg. So forwarding must be enabled on the
// interface, as by sysctl net.ipv4.conf.eth0.forwarding=1 and net.ipv6.conf.eth0.forwarding=1.
// Otherwise the program passes all packets, with the reason "pass_no_route".
//
// A veth delivers what the other end sends in native mode only if it has an XDP program of its
// own, such as one that passes everything. A process cannot find that out from the other end,
// so [Auto] is [Generic] on a veth, and on a bond, whose ports may be veths. Packets must reach
// the interface with complete checksums. A virtual interface may leave them to hardware that
// does not exist: see tx-checksumming in ethtool(8).
//
// # The quota stage
//
// The quota stage drops UDP packets to a guarded port: packets from denied prefixes, packets
// above a source's rate, Initials of less than 1200 bytes, and Initials of new connections
// (QUIC versions 1 and 2) from sources that the controller refuses or that exceed their rate.
// Packets of established connections and Initials of handshakes under way pass. Each verdict
// expires, and holds only while the controller renews its lease. In generic mode several
// packets that GRO has put together count as one.
//
// # The monitor stage
//
// The monitor stage runs before the others, sees all UDP packets, and passes all of them. Egress
// packets are seen at the TCX hook (Linux 6.6), except those that this host forwards, which were
// seen at ingress, and those that the relay stage sends.
//
// # Reasons
//
// [Program.Stats] counts packets by [Reason]:
//
//	relayed             forwarded by the relay stage
//	pass_other          no UDP to a port of the relay, or in an encapsulation, with IP options,
//	                    or fragmented
//	pass_short          too short for a short header
//	pass_long           a long header: a handshake
//	pass_control        a packet of a control connection, which ends at the relay
//	pass_unknown        no leg with this connection ID in the kernel's table
//	pass_source         not from the other leg, or not to the address that it uses
//	pass_ttl            the TTL or hop limit is 1 or less
//	pass_mixed          the legs are of different families, or IPv6 without a UDP checksum
//	pass_no_route       no route or neighbour is known, or the packet exceeds the MTU
//	event_lost          not a packet: an event for Go was lost, and will be repeated
//
//	quota_no_lease      passed: the controller has not renewed its lease
//	quota_allowed       passed: on the allow list
//	quota_other         passed: no Initial of version 1 or 2, or one that Go has to read
//	quota_continuing    passed: an Initial of a handshake that the server has answered
//	quota_known_attempt passed: an Initial of an attempt that was admitted before
//	quota_new           passed: the first Initial of an attempt
//	quota_report_lost   not a packet: a report for Go was lost, and will be repeated
//	quota_denied        dropped: on the deny list
//	quota_packet_rate   dropped: above the source's rate of packets
//	quota_short_initial dropped: an Initial of less than 1200 bytes (RFC 9000 §14.1)
//	quota_refused       dropped: an attempt of a source that the controller refuses
//	quota_attempt_rate  dropped: above the source's rate of attempts
//
//	monitor_reported    reported to Go
//	monitor_limited     counted, but not reported: the limit of reports was reached
//	monitor_ring_full   counted, but not reported: the ring of samples was full
//	monitor_ignored     of a flow that is not QUIC
//	monitor_skipped     not read (a fragment, a tunnel, unknown headers), and not reported
//	                    because of the limit, or because the ring was full
//	monitor_flow_new    not a packet: a flow was added
//	monitor_flow_failed skipped: no flow could be added
//
// The relay stage also counts what the quota stage has passed. The monitor stage counts only
// packets that match no rule of their flow: the flow itself counts the others.
package xdp
