package main

// nameTables are about package relay/sni in userspace.
var nameTables = []table{
	nameTable("one bulk stream", "^Benchmark(Bulk|Short|Memory)$", "Bulk/streams=1/", bulkColumns),
	nameTable("16 bulk streams", "^Benchmark(Bulk|Short|Memory)$", "Bulk/streams=16/", bulkColumns),
	nameTable("connections with 1 kB each", "^Benchmark(Bulk|Short|Memory)$", "Short/", []column{
		{"connections/s", "conns/s", ""}, {"CPU of the relay, µs per connection", "relay-cpu-us/conn", ""}, {"with both ends", "cpu-us/conn", ""},
	}),
	{
		title: "TLS by name: QUIC, packets of 1200 bytes per second on one CPU (Linux)",
		pkg:   "./relay/sni", bench: "^BenchmarkQUICForward$", unit: "pps",
		ours: "relay/sni", peer: "plain ReadFrom and Write",
		rows: []row{
			{"one bulk flow", "QUICForward/flows=1/relay", "QUICForward/flows=1/plain"},
			{"64 flows in turns", "QUICForward/flows=64/relay", "QUICForward/flows=64/plain"},
		},
	},
	{
		title: "TLS by name: bytes of memory per connection that waits (Linux)",
		pkg:   "./relay/sni", bench: "^Benchmark(Bulk|Short|Memory)$", unit: "B/conn",
		ours: "relay/sni",
		rows: []row{{"connection, both sides", "Memory", ""}},
	},
}

var bulkColumns = []column{
	{"MB/s", "MB/s-relayed", ""}, {"CPU of the relay, ms per GB", "relay-cpu-ms/GB", ""}, {"with both ends", "cpu-ms/GB", ""},
}

// nameTable returns a table of the relay by name beside others. Programs that are not installed
// have no figures.
func nameTable(what, bench, prefix string, columns []column) table {
	return table{
		title: "TLS by name: " + what + " (Linux)",
		pkg:   "./relay/sni", bench: bench, columns: columns,
		rows: []row{
			{"relay/sni", prefix + "relay", ""},
			{"loop of io.Copy to one upstream", prefix + "copy", ""},
			{"nginx, ssl_preread", prefix + "nginx", ""},
			{"HAProxy, splice-auto", prefix + "haproxy", ""},
		},
	}
}
