package main

// peersTables are about our programs and others.
var peersTables = []table{
	peersTable("one bulk flow, in trains of 32 packets", "Peers/bulk/"),
	peersTable("64 flows in turns, packet by packet", "Peers/flows/"),
	{
		title: "The peers of the monitor: a capture of 100 MB, a half of whose packets are of QUIC (Linux)",
		pkg:   "./tools/peers", flags: "-run ^capture/ -size 100000000",
		columns: []column{
			{"seconds", "s", ""}, {"MB/s", "MB/s", ""}, {"of ours", "MB/s", "Peers/capture/monitor"},
			{"CPU seconds", "cpu-s", ""}, {"of ours", "cpu-s", "Peers/capture/monitor"}, {"memory (RSS), MB", "MB", ""},
			{"connections found, %", "%-connections", ""}, {"names found, %", "%-names", ""},
		},
		rows: []row{
			{"ours, examples/monitor", "Peers/capture/monitor", ""},
			{"nDPI's ndpiReader", "Peers/capture/ndpi", ""},
			{"tshark", "Peers/capture/tshark", ""},
		},
	},
}

// peersTable returns a table of relays of several kinds in the same network.
func peersTable(what, prefix string) table {
	const speed, cpu, ours = "pps", "cpu-ns/packet", "quicway-go"
	return table{
		title: "The peers: " + what + " (root)",
		pkg:   "./tools/peers", flags: "-run ^(bulk|flows)/",
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
