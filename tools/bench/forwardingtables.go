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
	{
		title: "Forwarding paced: packets of 1200 bytes that find the loops waiting (root)",
		pkg:   "./relay", bench: "^BenchmarkPaced$/flows/pps", flags: "-benchtime=9x",
		columns: []column{
			{"relay, CPU ns per packet", "cpu-ns", ""}, {"plain loop", "cpu-ns-plain", ""}, {"ratio", "of-plain-cpu-ns", ""},
			{"of the machine, ratio", "of-plain-machine-ns", ""},
			{"median delay, µs", "p50-us", ""}, {"plain loop", "p50-us-plain", ""},
			{"99 %, µs", "p99-us", ""}, {"plain loop", "p99-us-plain", ""},
		},
		rows: []row{
			{"64 flows in turns, 10 000 packets/s", "Paced/flows=64/pps=10000", ""},
			{"30 000", "Paced/flows=64/pps=30000", ""},
			{"50 000", "Paced/flows=64/pps=50000", ""},
			{"trains of one flow, 30 000", "Paced/flows=1/pps=30000", ""},
		},
	},
	{
		title: "Forwarding paced: the highest rate of which at most a thousandth is lost or late, packets/s (root)",
		pkg:   "./relay", bench: "^BenchmarkPaced$/flows/most", flags: "-benchtime=3x",
		columns: []column{{"relay", "most-pps", ""}, {"plain loop", "most-pps-plain", ""}, {"ratio", "of-plain-most-pps", ""}},
		rows:    []row{{"64 flows in turns", "Paced/flows=64/most", ""}, {"trains of one flow", "Paced/flows=1/most", ""}},
	},
}
