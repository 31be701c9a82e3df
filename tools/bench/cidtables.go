package main

// cidTables are about package cid.
var cidTables = []table{
	{
		title: "Looking up one of 1 048 576 connection IDs, ns",
		pkg:   "./cid", bench: "^BenchmarkGet$", flags: "-benchtime=60x",
		columns: []column{
			{"MemoryStore", "ns-MemoryStore", ""}, {"map under one RWMutex", "ns-RWMutex", ""}, {"ratio", "of-map-MemoryStore", ""},
			{"sync.Map", "ns-sync.Map", ""}, {"ratio", "of-map-sync.Map", ""},
		},
		rows: []row{
			{"alone", "Get/serial", ""},
			{"on all CPUs", "Get/parallel", ""},
			{"on all CPUs, every 16th access a refresh", "Get/refreshed", ""},
		},
	},
	{
		title: "Memory of a connection ID in a MemoryStore with 524 288 to 1 048 576, bytes",
		pkg:   "./cid", bench: "^BenchmarkMemoryStoreSize$", flags: "-benchtime=1x",
		columns: []column{{"mean", "B/ID", ""}, {"most", "B/ID-most", ""}},
		rows:    []row{{"24 IDs of each leg", "MemoryStoreSize", ""}},
	},
}
