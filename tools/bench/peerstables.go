package main

// peersTables are about our relays and others.
var peersTables = []table{
	peersTable("one bulk flow, in trains of 32 packets", "Peers/bulk/"),
	peersTable("64 flows in turns, packet by packet", "Peers/flows/"),
}

// peersTable returns a table of relays of several kinds in the same network.
func peersTable(what, prefix string) table {
	const speed, cpu, ours = "pps", "cpu-ns/packet", "quicway-go"
	return table{
		title: "The peers: " + what + " (root)",
		pkg:   "./tools/peers",
		columns: []column{
			{"packets/s", speed, ""}, {"of ours in Go", speed, prefix + ours},
			{"CPU, ns per packet", cpu, ""}, {"of ours in Go", cpu, prefix + ours},
			{"of which the relay's process", "relay-ns/packet", ""}, {"its memory (RSS), MB", "MB", ""},
		},
		rows: []row{
			{"routed by the kernel, without a relay", prefix + "routed", ""},
			{"ours, XDP, native", prefix + "quicway-native", ""},
			{"ours, XDP, generic", prefix + "quicway-generic", ""},
			{"ours, Go", prefix + ours, ""},
			{"plain ReadFrom and WriteTo", prefix + "plain", ""},
			{"Tailscale, net/udprelay", prefix + "tailscale", ""},
			{"coturn", prefix + "coturn", ""},
			{"pion/turn", prefix + "pion", ""},
			{"nginx, stream", prefix + "nginx", ""},
			{"HAProxy", prefix + "haproxy", ""},
		},
	}
}
