package main

// wireTables are about package wire.
var wireTables = []table{
	{
		title: "Reading headers, ns",
		pkg:   "./internal/wire", bench: ".", unit: "ns/op",
		ours: "package wire",
		rows: []row{
			{"destination ID of a short header", "DstID", ""},
			{"Initial", "Parse/initial", ""},
			{"Retry", "Parse/retry", ""},
			{"datagram of coalesced Initial and Handshake", "Parse/coalesced", ""},
			{"keys of an Initial, and its payload", "OpenInitial", ""},
		},
	},
}
