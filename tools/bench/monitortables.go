package main

// monitorTables are about package monitor, in Go and in the kernel.
var monitorTables = []table{
	{
		title: "Monitor: packets per second of a capture file on one CPU",
		pkg:   "./monitor", bench: "^BenchmarkFile$", unit: "pps",
		ours: "monitor",
		rows: []row{
			{"short headers of one connection", "File/flows=1", ""},
			{"short headers of 10 000 connections in turns", "File/flows=10000", ""},
		},
	},
	{
		title: "Monitor: finding the datagram in a packet, ns",
		pkg:   "./monitor", bench: "^BenchmarkLayers$", unit: "ns/op",
		ours: "internal/decap", peer: "gopacket's DecodingLayerParser",
		rows: []row{{"IPv4", "Layers/decap", "Layers/gopacket"}},
	},
	{
		title: "Monitor: bytes per tracked connection (root)",
		pkg:   "./monitor ./internal/datapath", bench: "^Benchmark(Flow)?Memory$", unit: "B/connection",
		ours: "monitor",
		rows: []row{
			{"in Go, with its path, IDs, names and places in all tables", "Memory", ""},
			{"in the kernel, of those that there is room for", "FlowMemory", ""},
		},
	},
	{
		title: "Monitor: ns per packet in the kernel (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkMonitor$", unit: "ns/op",
		ours: "with the monitor stage", peer: "empty program that passes",
		rows: []row{
			{"IPv4, short header of a flow that is known", "Monitor/IPv4/short/on", "Monitor/IPv4/short/floor"},
			{"the same, the stage off", "Monitor/IPv4/short/off", "Monitor/IPv4/short/floor"},
			{"IPv4, no QUIC", "Monitor/IPv4/other/on", "Monitor/IPv4/other/floor"},
			{"IPv4, Initial of a new flow, another each time", "Monitor/IPv4/new/on", "Monitor/IPv4/new/floor"},
			{"IPv6, short header of a flow that is known", "Monitor/IPv6/short/on", "Monitor/IPv6/short/floor"},
			{"IPv6, no QUIC", "Monitor/IPv6/other/on", "Monitor/IPv6/other/floor"},
			{"IPv6, Initial of a new flow, another each time", "Monitor/IPv6/new/on", "Monitor/IPv6/new/floor"},
		},
	},
	{
		title: "Monitor: packets of 1200 bytes per second through a router between a sender and a sink on the same CPUs (root)",
		pkg:   "./relay", bench: "^BenchmarkRouter$", flags: "-benchtime=31x",
		columns: []column{
			{"with the monitor stage, packets/s", "pps", ""}, {"without", "pps-without", ""}, {"ratio", "of-without-pps", ""},
			{"CPU ns per packet", "cpu-ns", ""}, {"without", "cpu-ns-without", ""}, {"ratio", "of-without-cpu", ""},
		},
		rows: []row{{"native", "Router/native", ""}, {"generic", "Router/generic", ""}},
	},
}
