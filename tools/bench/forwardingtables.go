package main

// forwardingTables are about the loop of package relay.
var forwardingTables = []table{
	{
		title: "Forwarding, packets of 1200 bytes per second on one CPU, which are in the queue beforehand",
		pkg:   "./relay", bench: "^BenchmarkForward$", unit: "pps",
		ours: "relay", peer: "plain ReadFrom and WriteTo",
		rows: []row{
			{"one bulk flow", "Forward/flows=1/relay", "Forward/flows=1/plain"},
			{"64 flows in turns", "Forward/flows=64/relay", "Forward/flows=64/plain"},
		},
	},
	{
		title: "Forwarding live: packets of 1200 bytes that another process sends meanwhile (root)",
		pkg:   "./relay", bench: "^BenchmarkLive$", flags: "-benchtime=9x",
		columns: []column{
			{"relay, packets/s", "pps", ""}, {"plain loop", "pps-plain", ""}, {"ratio", "of-plain-pps", ""},
			{"relay, CPU ns per packet", "cpu-ns", ""}, {"plain loop", "cpu-ns-plain", ""}, {"ratio", "of-plain-cpu", ""},
		},
		rows: []row{{"trains of one bulk flow", "Live/flows=1", ""}, {"64 flows in turns", "Live/flows=64", ""}},
	},
}
