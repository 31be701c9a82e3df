package main

// p2pTables are about package p2p.
var p2pTables = []table{
	{
		title: "Throughput of one stream between two sockets of this host, MB/s",
		pkg:   "./p2p", bench: "^BenchmarkThroughput$", unit: "MB/s",
		ours: "package p2p", peer: "quic-go alone, directly",
		rows: []row{
			{"direct", "Throughput/direct", "Throughput/plain"},
			{"over the relay", "Throughput/relay", "Throughput/plain"},
		},
	},
	{
		title: "Throughput of a TCP port that examples/forward forwards through a relay of this host",
		pkg:   "./examples/forward/internal/ports", bench: "^BenchmarkForward$", flags: "-benchtime=128x",
		columns: []column{{"MB/s", "MB/s", ""}, {"of a stream, in the same run", "MB/s", "Forward/stream"}},
		rows: []row{
			{"a forwarded TCP connection", "Forward/forward", ""},
			{"a stream of package p2p", "Forward/stream", ""},
		},
	},
	{
		title: "Control connections: 1000 clients that connect at once, and wait (Linux)",
		pkg:   "./p2p", bench: "^BenchmarkWaiting$", flags: "-benchtime=1x",
		columns: []column{
			{"memory of the server (RSS), kB per client", "kB-rss/client", ""}, {"heap", "kB-heap/client", ""}, {"stacks", "kB-stacks/client", ""},
			{"heap of an endpoint, kB", "kB-heap/endpoint", ""}, {"packets lost", "lost/op", ""}, {"attempts that failed", "failed/op", ""},
		},
		rows: []row{
			{"a relay: endpoints that wait for offers", "Waiting/relay", ""},
			{"HTTP/3 of quic-go alone: the rest of an answer", "Waiting/http3", ""},
			{"quic-go alone: bytes of a stream", "Waiting/quic", ""},
		},
	},
	{
		title: "Memory of package p2p, each of 100 in one process (Linux)",
		pkg:   "./p2p", bench: "^BenchmarkMemory$", flags: "-benchtime=1x",
		columns: []column{{"heap, kB", "kB-heap", ""}, {"stacks, kB", "kB-stacks", ""}, {"goroutines", "goroutines", ""}},
		rows: []row{
			{"idle endpoint with two sockets", "Memory/endpoint", ""},
			{"connection of quic-go alone, both ends", "Memory/plain", ""},
			{"connection over the relay, both ends, and the relay's session", "Memory/relayed", ""},
		},
	},
	{
		title: "Throughput of one stream where UDP is blocked at both sides, and what bounds it",
		pkg:   "./p2p", bench: "^BenchmarkTunnel$",
		columns: []column{{"MB/s", "MB/s", ""}, {"of TLS over TCP, in the same run", "MB/s", "Tunnel/TLS"}, {"of quic-go alone", "MB/s", "Tunnel/plain"}},
		rows: []row{
			{"package p2p, in two tunnels to the relay", "Tunnel/tunnel", ""},
			{"TLS over TCP, copied by a program", "Tunnel/TLS", ""},
			{"package p2p, over the relay by UDP", "Tunnel/relay", ""},
			{"quic-go alone, directly by UDP", "Tunnel/plain", ""},
		},
	},
	{
		title: "Processes: one stream between two processes of this host, and through a third one (Linux)",
		pkg:   "./p2p", bench: "^BenchmarkProcesses$", flags: "-benchtime=256x",
		columns: []column{
			{"MB/s", "MB/s", ""}, {"of quic-go alone, in the same run", "MB/s", "Processes/plain"},
			{"CPU of all processes, ms per GB", "cpu-ms/GB", ""}, {"of the relay alone", "relay-cpu-ms/GB", ""},
		},
		rows: []row{
			{"quic-go alone, directly", "Processes/plain", ""},
			{"package p2p, directly", "Processes/direct", ""},
			{"package p2p, over the relay", "Processes/relayed", ""},
			{"TLS over TCP, directly", "Processes/TLS", ""},
			{"TLS over TCP, copied by the relay's process", "Processes/TLS-relayed", ""},
		},
	},
	{
		title: "Processes: connections made, eight at a time (Linux)",
		pkg:   "./p2p", bench: "^BenchmarkProcesses$", flags: "-benchtime=256x",
		columns: []column{
			{"connections/s", "dials/s", ""}, {"CPU of all processes, µs each", "cpu-us/dial", ""},
			{"of the relay alone", "relay-cpu-us/dial", ""},
		},
		rows: []row{
			{"quic-go alone, directly", "Processes/dial-plain", ""},
			{"package p2p, through the relay's mailbox", "Processes/dial-relayed", ""},
		},
	},
	{
		title: "From the handshake to the direct path, ms, by what the dialer (left) and the accepter are behind",
		pkg:   "./p2p", bench: "TimeToDirect", unit: "ms/op", none: "relay",
		pairs: []string{"none", "full cone", "address-restricted", "port-restricted", "symmetric", "carrier-grade", "UDP blocked"},
	},
}
