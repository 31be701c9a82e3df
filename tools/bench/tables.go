package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// table is one table of figures.
type table struct {
	title string
	pkg   string // or several; or a program that prints what go test does
	bench string // of go test; empty: pkg is a program
	unit  string // of the figures, as go test prints it
	flags string // for go test; if set, figures are printed with their spread
	ours  string // title of the column of our figures
	peer  string // title of the column of the figures to compare with, if any
	rows  []row

	// pairs makes a table with a row and a column for each name. bench is then a test
	// that prints the figure of each pair, in ms. none is printed instead of 0.
	pairs []string
	none  string

	// columns makes a table with a column for each unit. Figures may be missing.
	columns []column
	// claims makes a table that compares a benchmark with others, in percent, next to
	// what others have reported.
	claims []claim
}

// column is a column of a table: one figure of each row. With base each figure is divided by that
// of the benchmark base in the same run.
type column struct{ title, unit, base string }

// claim is the change of a figure in percent that others have reported (says).
type claim struct{ label, unit, says string }

// row is a row of a table, with the names of its benchmarks.
type row struct {
	label string
	ours  string
	peer  string // empty: nothing to compare with
}

var tables = []table{
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
	aloneTable("one ID in use", 1),
	aloneTable("64 IDs in use", 64),
	aloneTable("4096 IDs in use", 1<<12),
	aloneTable("131 072 IDs in use", 1<<17),
	aloneTable("1 048 576 IDs in use", 1<<20),
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
		title: "Control connections: 1000 clients that connect at once, and wait for offers (Linux)",
		pkg:   "./p2p", bench: "^BenchmarkWaiting$", flags: "-benchtime=1x",
		columns: []column{
			{"memory of the relay (RSS), kB per client", "kB-rss/client", ""}, {"heap", "kB-heap/client", ""}, {"stacks", "kB-stacks/client", ""},
			{"heap of an endpoint, kB", "kB-heap/endpoint", ""}, {"packets lost", "lost/op", ""}, {"attempts that failed", "failed/op", ""},
		},
		rows: []row{{"1000 clients", "Waiting", ""}},
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
		pkg:   "./relay", bench: "^BenchmarkRouter$", unit: "pps",
		ours: "with the monitor stage", peer: "without",
		rows: []row{
			{"native", "Router/native/on", "Router/native/off"},
			{"generic", "Router/generic/on", "Router/generic/off"},
		},
	},
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
	peersTable("one bulk flow, in trains of 32 packets", "Peers/bulk/"),
	peersTable("64 flows in turns, packet by packet", "Peers/flows/"),
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

// peersTable returns a table of relays of several kinds in the same network.
func peersTable(what, prefix string) table {
	const speed, cpu, ours = "pps", "cpu-ns/packet", "quicway-go"
	return table{
		title: "The peers: " + what + " (root)",
		pkg:   "./tools/peers",
		columns: []column{
			{"packets/s", speed, ""}, {"of ours in Go", speed, prefix + ours},
			{"CPU, ns per packet", cpu, ""}, {"of ours in Go", cpu, prefix + ours},
			{"of which the relay's process", "relay-ns/packet", ""}, {"its memory (RSS), MB", "MB", ""},
		},
		rows: []row{
			{"routed by the kernel, without a relay", prefix + "routed", ""},
			{"ours, XDP, native", prefix + "quicway-native", ""},
			{"ours, XDP, generic", prefix + "quicway-generic", ""},
			{"ours, Go", prefix + ours, ""},
			{"plain ReadFrom and WriteTo", prefix + "plain", ""},
			{"Tailscale, net/udprelay", prefix + "tailscale", ""},
			{"coturn", prefix + "coturn", ""},
			{"pion/turn", prefix + "pion", ""},
			{"nginx, stream", prefix + "nginx", ""},
			{"HAProxy", prefix + "haproxy", ""},
		},
	}
}

// aloneTable returns a table of ways to forward, of which nothing but these is measured.
func aloneTable(what string, ids int) table {
	prefix := fmt.Sprintf("Alone/ids=%d/", ids)
	return table{
		title: "The relay alone: " + what + " (root)",
		pkg:   "./relay", bench: "^BenchmarkAlone$", flags: "-benchtime=0.5s",
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

// command returns the arguments of the go command that prints the figures.
func (t *table) command() []string {
	if t.bench == "" {
		return []string{"run", t.pkg}
	}
	if t.pairs != nil {
		return append([]string{"test", "-count", "1", "-v", "-run", "^Test" + t.bench + "$"}, strings.Fields(t.pkg)...)
	}
	return append([]string{"test", "-run", "^$", "-bench", t.bench, "-benchmem"}, strings.Fields(t.flags+" "+t.pkg)...)
}

// printPairs writes a table with all pairs.
func (t *table) printPairs(w io.Writer, r results) error {
	fmt.Fprintf(w, "| | %s |\n|---|%s\n", strings.Join(t.pairs, " | "), strings.Repeat("---:|", len(t.pairs)))
	for _, a := range t.pairs {
		fmt.Fprintf(w, "| %s |", a)
		for _, b := range t.pairs {
			name := strings.ReplaceAll(t.bench+"/"+a+"/"+b, " ", "_")
			f, ok := r.median(name, t.unit)
			if !ok {
				return fmt.Errorf("no figure for %s in %s", name, t.unit)
			}
			cell := figure(f)
			if f == 0 {
				cell = t.none
			}
			fmt.Fprintf(w, " %s |", cell)
		}
		fmt.Fprintln(w)
	}
	return nil
}

// print writes the table in Markdown.
func (t *table) print(w io.Writer, r results) error {
	fmt.Fprintf(w, "\n**%s**\n\n", t.title)
	switch {
	case t.pairs != nil:
		return t.printPairs(w, r)
	case t.columns != nil:
		return t.printColumns(w, r)
	case t.claims != nil:
		return t.printClaims(w, r)
	}
	if t.peer == "" {
		fmt.Fprintf(w, "| | %s | allocations |\n|---|---:|---:|\n", t.ours)
	} else {
		fmt.Fprintf(w, "| | %s | %s | ratio | allocations |\n|---|---:|---:|---:|---:|\n", t.ours, t.peer)
	}
	for _, row := range t.rows {
		ours, ok := r.median(row.ours, t.unit)
		if !ok {
			return fmt.Errorf("no figure for %s in %s", row.ours, t.unit)
		}
		allocs, _ := r.median(row.ours, "allocs/op")
		fmt.Fprintf(w, "| %s | %s", row.label, figure(ours))
		if t.flags != "" {
			least, greatest := r.spread(row.ours, t.unit)
			fmt.Fprintf(w, " (%s to %s)", figure(least), figure(greatest))
		}
		fmt.Fprint(w, " |")
		if row.peer != "" {
			peer, ok := r.median(row.peer, t.unit)
			if !ok {
				return fmt.Errorf("no figure for %s in %s", row.peer, t.unit)
			}
			fmt.Fprintf(w, " %s | %.2f |", figure(peer), ours/peer)
		} else if t.peer != "" {
			fmt.Fprint(w, " | |")
		}
		fmt.Fprintf(w, " %s |\n", figure(allocs))
	}
	return nil
}

// figure formats a number with at most three significant digits.
func figure(f float64) string {
	switch {
	case f >= 10_000:
		return group(int64(f/1000)) + " 000"
	case f >= 10 || f == 0:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'f', 1, 64)
}

// group formats a number with a space between each three digits.
func group(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s %03d", group(n/1000), n%1000)
}
