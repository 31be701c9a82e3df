package main

import "fmt"

// aloneTables are about a relay without a sender and a sink.
var aloneTables = []table{
	aloneTable("one ID in use", 1),
	aloneTable("64 IDs in use", 64),
	aloneTable("4096 IDs in use", 1<<12),
	aloneTable("131 072 IDs in use", 1<<17),
	aloneTable("1 048 576 IDs in use", 1<<20),
}

// aloneTable returns a table of ways to forward, of which nothing but these is measured. Each forwards as
// many packets, however busy the machine is: few of them would find the caches cold.
func aloneTable(what string, ids int) table {
	prefix := fmt.Sprintf("Alone/ids=%d/", ids)
	return table{
		title: "The relay alone: " + what + " (root)",
		pkg:   "./relay", bench: "^BenchmarkAlone$", flags: "-benchtime=300000x",
		columns: []column{
			{"ns of CPU per packet", "net-ns/op", ""}, {"packets/s of one CPU", "net-pps", ""}, {"of the plain loop", "net-pps", prefix + "plain"},
			{"with the generator, ns", "ns/op", ""}, {"of the plain loop", "pps", prefix + "plain"},
		},
		rows: []row{
			{"XDP, native", prefix + "native", ""},
			{"XDP, generic", prefix + "generic", ""},
			{"Go", prefix + "loop", ""},
			{"plain ReadFrom and WriteTo", prefix + "plain", ""},
			{"routed by the kernel, without a relay", prefix + "routed", ""},
		},
	}
}
