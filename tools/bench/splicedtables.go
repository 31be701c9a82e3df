package main

// splicedTables are about package relay/sni in the kernel.
var splicedTables = []table{
	splicedTable("one bulk stream", "Spliced/copying=false/streams=1/"),
	splicedTable("16 bulk streams", "Spliced/copying=false/streams=16/"),
	splicedTable("one bulk stream between ends that copy", "Spliced/copying=true/streams=1/"),
	splicedTable("16 bulk streams between ends that copy", "Spliced/copying=true/streams=16/"),
	{
		title: "TLS by name, spliced: MB/s of one stream over two links with losses and 10 ms of round-trip time each (root)",
		pkg:   "./relay/sni", bench: "^BenchmarkSplicedLoss$", flags: "-benchtime=32x",
		columns: []column{{"MB/s", "MB/s-relayed", ""}},
		rows: []row{
			{"0.1 % lost on each link: routed", "SplicedLoss/loss=0.001/routed", ""},
			{"relay/sni with Splice", "SplicedLoss/loss=0.001/spliced", ""},
			{"relay/sni in userspace", "SplicedLoss/loss=0.001/userspace", ""},
			{"1 % lost on each link: routed", "SplicedLoss/loss=0.01/routed", ""},
			{"relay/sni with Splice", "SplicedLoss/loss=0.01/spliced", ""},
			{"relay/sni in userspace", "SplicedLoss/loss=0.01/userspace", ""},
		},
	},
	{
		title: "TLS by name, spliced: bytes of kernel memory per connection that there is room for (root)",
		pkg:   "./internal/splice", bench: "^BenchmarkMemory$", unit: "B/pair", flags: "-benchtime=1x",
		ours: "internal/splice",
		rows: []row{{"pair, both sides and directions", "Memory", ""}},
	},
}

// splicedTable returns a table of the ways from a host to another one through a third.
func splicedTable(what, prefix string) table {
	const speed, cpu = "MB/s-relayed", "cpu-ms/GB"
	return table{
		title: "TLS by name, spliced: " + what + " (root)",
		pkg:   "./relay/sni", bench: "^BenchmarkSpliced$", flags: "-benchtime=2048x",
		columns: []column{
			{"MB/s", speed, ""}, {"of routed", speed, prefix + "routed"}, {"of userspace", speed, prefix + "userspace"},
			{"CPU, ms per GB", cpu, ""}, {"of routed", cpu, prefix + "routed"}, {"of userspace", cpu, prefix + "userspace"},
		},
		rows: []row{
			{"routed, without a relay", prefix + "routed", ""},
			{"relay/sni, in the kernel", prefix + "spliced", ""},
			{"relay/sni, in userspace by splice(2)", prefix + "userspace", ""},
			{"nginx, ssl_preread", prefix + "nginx", ""},
			{"HAProxy, splice-auto", prefix + "haproxy", ""},
		},
	}
}
