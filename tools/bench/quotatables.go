package main

// quotaTables are about package quota, in Go and in the kernel.
var quotaTables = []table{
	{
		title: "Quota: ns per decision, about a random one of 1 048 576 sources",
		pkg:   "./quota", bench: "^Benchmark(Decide|WantsRetry|Admit|Request)$", unit: "ns/op",
		ours: "quota", peer: "the only source",
		rows: []row{
			{"packet of a connection", "Decide/sources=1M/established", "Decide/sources=1/established"},
			{"Initial of a handshake under way", "Decide/sources=1M/continuing", "Decide/sources=1/continuing"},
			{"packet from a denied prefix", "Decide/sources=1M/denied", "Decide/sources=1/denied"},
			{"Initial of a new attempt", "Decide/sources=1M/new", "Decide/sources=1/new"},
			{"Initial of a source over quota", "Decide/sources=1M/over-quota", "Decide/sources=1/over-quota"},
			{"Retry or not", "WantsRetry/serial", ""},
			{"Retry or not, on all CPUs", "WantsRetry/parallel", ""},
			{"connection, until it ends", "Admit", ""},
			{"request", "Request", ""},
		},
	},
	{
		title: "Quota: bytes of memory per source, of 1 048 576",
		pkg:   "./quota", bench: "^BenchmarkSources$", unit: "B/source",
		ours: "quota",
		rows: []row{{"source of IPv4, and its place in the table", "Sources", ""}},
	},
	{
		title: "Kernel, quota: ns per packet of the quota stage, about one source (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkQuota$", unit: "ns/op", flags: "-benchtime=1000000x",
		ours: "quota", peer: "empty program",
		rows: quotaRows("1"),
	},
	{
		title: "Kernel, quota: the same, about any of 131 072 sources, another each time (root)",
		pkg:   "./internal/datapath", bench: "^BenchmarkQuota$", unit: "ns/op", flags: "-benchtime=1000000x",
		ours: "quota", peer: "empty program",
		rows: quotaRows("128k"),
	},
	experiment("an attacker dials on", "dials", false),
	experiment("XDP, native, compared, an attacker dials on", "dials", true),
	experiment("20 000 first Initials a second with invalid content", "initials", false),
	experiment("XDP, native, compared, the same", "initials", true),
}

// quotaRows returns the rows of the quota stage with a number of sources.
func quotaRows(sources string) (rows []row) {
	for _, what := range []struct{ label, name string }{
		{"denied", "deny"},
		{"of a connection", "established"},
		{"Initial of a source over quota", "over-quota"},
		{"the same, with a token", "over-quota-token"},
	} {
		for _, family := range []string{"IPv4", "IPv6"} {
			name := "Quota/sources=" + sources + "/"
			rows = append(rows, row{what.label + ", " + family, name + what.name + "/" + family, name + "floor"})
		}
	}
	return rows
}
