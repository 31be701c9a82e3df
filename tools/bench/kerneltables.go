package main

// kernelTables are about the relay in the kernel.
var kernelTables = []table{
	{
		title: "Kernel: ns per packet that the XDP program forwards (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkRelay(Random)?$", unit: "ns/op",
		ours: "relay", peer: "empty program that sends back",
		rows: []row{
			{"IPv4, the only ID", "Relay/IPv4/ids=1", "Relay/IPv4/floor"},
			{"IPv4, one of 1 048 576 IDs", "Relay/IPv4/ids=1M", "Relay/IPv4/floor"},
			{"IPv4, another of them each time", "RelayRandom/IPv4/relay", "RelayRandom/IPv4/floor"},
			{"IPv6, the only ID", "Relay/IPv6/ids=1", "Relay/IPv6/floor"},
			{"IPv6, one of 1 048 576 IDs", "Relay/IPv6/ids=1M", "Relay/IPv6/floor"},
			{"IPv6, another of them each time", "RelayRandom/IPv6/relay", "RelayRandom/IPv6/floor"},
		},
	},
	{
		title: "Kernel: ns per packet that the XDP program forwards, net of the empty program, by the IDs in use, of 1 048 576 (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkRelayIDs$", flags: "-benchtime=1x",
		columns: []column{
			{"one", "ns-net/ids=1", ""}, {"4096", "ns-net/ids=4Ki", ""}, {"131 072", "ns-net/ids=128Ki", ""}, {"1 048 576", "ns-net/ids=1Mi", ""},
		},
		rows: []row{{"ten IDs of each session", "RelayIDs", ""}},
	},
	{
		title: "Kernel: ns of CPU that Go takes to put and delete an ID beside 1 048 576 others (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkRoutePut$", unit: "cpu-ns/op",
		ours: "table of IDs", peer: "hash table of the kernel",
		rows: []row{{"one step of a window", "RoutePut/table", "RoutePut/hash"}},
	},
	{
		title: "Kernel: packets on two CPUs while Go moves, puts and deletes IDs, for a minute (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkRouteRace$", flags: "-benchtime=1m",
		columns: []column{
			{"to the right session", "right", ""}, {"left to Go", "to-Go", ""}, {"to a wrong session", "wrong", ""},
			{"IDs moved", "moves", ""}, {"IDs put", "puts", ""},
		},
		rows: []row{{"packets", "RouteRace", ""}},
	},
	{
		title: "Kernel: instructions that the verifier processes, of at most 1 000 000 (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkVerifier$", unit: "insns",
		ours: "this kernel",
		rows: []row{
			{"relay", "Verifier/relay", ""},
			{"quota", "Verifier/quota", ""},
			{"monitor", "Verifier/monitor", ""},
			{"all three", "Verifier/relay+quota+monitor", ""},
		},
	},
	{
		title: "Kernel: with a sender (GSO) and a sink on the same CPUs, packets of 1200 bytes per second (root)",
		pkg:   "./relay", bench: "^BenchmarkEndToEnd$", unit: "pps",
		ours: "relay", peer: "plain ReadFrom and WriteTo",
		rows: []row{
			{"XDP, native", "EndToEnd/kernel/native", "EndToEnd/plain"},
			{"XDP, generic", "EndToEnd/kernel/generic", "EndToEnd/plain"},
			{"Go", "EndToEnd/loop", "EndToEnd/plain"},
		},
	},
	{
		title: "Kernel: with a sender (GSO) and a sink on the same CPUs, ns of all CPUs per packet (root)",
		pkg:   "./relay", bench: "^BenchmarkEndToEnd$", unit: "cpu-ns/packet",
		ours: "relay", peer: "plain ReadFrom and WriteTo",
		rows: []row{
			{"XDP, native", "EndToEnd/kernel/native", "EndToEnd/plain"},
			{"XDP, generic", "EndToEnd/kernel/generic", "EndToEnd/plain"},
			{"Go", "EndToEnd/loop", "EndToEnd/plain"},
		},
	},
	{
		title: "Kernel: packets lost at a change, of 20 000 per second (root)",
		pkg:   "./relay", bench: "^BenchmarkSwitch$", unit: "lost/op",
		ours: "lost",
		rows: []row{
			{"attach or detach, native", "Switch/native/attach", ""},
			{"attach or detach, generic", "Switch/generic/attach", ""},
			{"another server takes over, native", "Switch/native/takeover", ""},
			{"another server takes over, generic", "Switch/generic/takeover", ""},
		},
	},
	{
		title: "Kernel: bytes per session of two legs (root)",
		pkg:   "./relay ./internal/datapath", bench: "^Benchmark(Kernel|Session)Memory$", unit: "B/session",
		ours: "bytes",
		rows: []row{
			{"in the kernel, with ten IDs", "KernelMemory", ""},
			{"in Go, with both windows", "SessionMemory", ""},
		},
	},
}
