# The whole interface of development: see CONTRIBUTING.md.
GO       ?= go
FUZZTIME ?= 10s
BENCH    ?= .

.PHONY: all peers peers-monitor generate lint test test-kernel test-unprivileged test-vm test-vm-all test-quic-go fuzz cross bench bench-kernel bench-alone bench-quota bench-monitor bench-sni bench-waiting bench-tunnel bench-relayed bench-spliced relay-chaos soak splice-soak half-requests compare demo-netns demo-nat demo-sni demo-relays relay-soak

all: generate lint test

## generate: the BPF objects, which need clang-19 and llvm-strip-19
generate:
	BPF2GO_CC=clang-19 BPF2GO_STRIP=llvm-strip-19 $(GO) generate ./...

# Modules of their own.
PEERS = tools/peers/turn tools/peers/udprelay

## lint: formatting, vet, staticcheck, and an exact go.mod
lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	for module in $(PEERS); do $(GO) vet -C $$module ./... || exit 1; done
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

## test: what needs no privileges, with the race detector
test:
	$(GO) test -race -shuffle=on -timeout 30m ./...

## test-kernel: the same, as root, with real network namespaces; skips nothing (lint vets)
test-kernel:
	QUICWAY_REQUIRE_KERNEL=1 $(GO) test -vet=off -p 3 -race -shuffle=on -timeout 30m ./...

## test-unprivileged: as whoever has just cloned this, also if root runs it
test-unprivileged:
	./tools/ci/unprivileged.sh

## cross: the systems that the library must build on, and what it must not pull in
cross:
	./tools/ci/cross.sh

## test-vm: the kernel's program on the kernels that docs/kernels.md promises, in virtual
## machines, and the table there (root, apt; some minutes)
test-vm:
	$(GO) run ./tools/vm -kernel 6.1,6.12 -skip '^($(LONG))$$' -matrix docs/kernels.md ./internal/datapath
	$(GO) run ./tools/vm -kernel 6.1,6.12 -run Parity ./relay ./quota ./monitor
	$(GO) run ./tools/vm -kernel 6.12 -run '$(SPLICE_PACKETS)' ./internal/splice

# The tests of internal/datapath that take longest, and are more about the program than about the kernel.
LONG = TestConcurrentChanges|TestNextHopRace|TestRouteRace|TestQuotaDecisions|TestPairHashSpreads

# The tests of internal/splice that give the programs single packets.
SPLICE_PACKETS = TestLoad|TestForward|TestOptions|TestWindowScales|TestDrain|TestWrap|TestFlags|TestSYN|TestReopened|TestTTL|TestECN|TestTooBig|TestClamp|TestPending|TestBelie|TestRenumbered

## test-vm-all: all tests of these packages there, and the program on other processors
## (an hour)
test-vm-all: test-vm
	$(GO) run ./tools/vm -kernel 6.1,6.12 -run '^($(LONG))$$' ./internal/datapath
	$(GO) run ./tools/vm -kernel 6.1 -run TestKernels ./internal/splice
	$(GO) run ./tools/vm -kernel 6.12 ./internal/splice
	$(GO) run ./tools/vm -kernel 6.1,6.12 -timeout 2h -skip 'Chaos|Experiment|LinkQUIC|ManyFlows|TestSample$$|^Example' ./relay ./quota ./monitor
	$(GO) run ./tools/vm -kernel 6.1,6.12 -run 'Hosts|Kernel|NAT' ./p2p
	$(GO) run ./tools/vm -arch arm64 -kernel 6.1,6.12 -matrix docs/kernels.md ./internal/datapath
	$(GO) run ./tools/vm -arch s390x -kernel 6.1 -matrix docs/kernels.md ./internal/datapath
	$(GO) run ./tools/vm -arch arm64 -kernel 6.12 -run Parity ./relay ./quota ./monitor
	$(GO) run ./tools/vm -arch s390x -kernel 6.1 -run Parity ./relay ./quota ./monitor

## test-quic-go: the packages that run on quic-go, with the newest commit of quic-go (in a copy
## of the tree)
test-quic-go:
	./tools/ci/quic-go.sh

## fuzz: every fuzz target for FUZZTIME
fuzz:
	./tools/ci/fuzz.sh $(FUZZTIME)

## bench: the tables in docs/benchmarks.md; BENCH is a regexp over their titles (root)
bench:
	$(GO) run ./tools/bench -run '$(BENCH)' -skip '^The peers'

## peers-monitor: the monitor beside nDPI and tshark, on a capture that this makes, into
## docs/benchmarks.md (apt install libndpi-bin tshark)
peers-monitor:
	$(GO) run ./tools/bench -run '^The peers of the monitor' -count $(or $(ROUNDS),5) -w docs/benchmarks.md -mark 'make peers-monitor'

## peers: that, and our relays beside others in one network (root; some minutes; apt install
## coturn nginx libnginx-mod-stream libndpi-bin tshark)
peers: peers-monitor
	$(GO) run ./tools/bench -run '^The peers:' -count $(or $(ROUNDS),5) -w docs/benchmarks.md -mark 'make peers'

## bench-kernel: those that are about the relay in the kernel (root)
bench-kernel:
	$(GO) run ./tools/bench -run '^Kernel:'

## bench-alone: those that are about the relay without a sender and a sink (root)
bench-alone:
	$(GO) run ./tools/bench -run '^The relay alone:'

## bench-quota: those that are about the quota, with eQUIC's experiment (root)
bench-quota:
	$(GO) run ./tools/bench -run '[Qq]uota' -count 10

## bench-monitor: those that are about the monitor (root)
bench-monitor:
	$(GO) run ./tools/bench -run Monitor

## bench-sni: those that are about TLS by name, beside nginx and HAProxy if they are installed
bench-sni:
	$(GO) run ./tools/bench -run '^TLS by name:'

## bench-waiting: what clients that wait cost the relay and themselves
bench-waiting:
	$(GO) run ./tools/bench -run '^Control connections:'

## bench-tunnel: how fast a stream is where UDP is blocked, beside TLS over TCP
bench-tunnel:
	$(GO) run ./tools/bench -run 'UDP is blocked' -count 10

## bench-relayed: a stream and connections through a relay, where both peers and the relay are
## processes of their own, beside quic-go and TLS over TCP
bench-relayed:
	$(GO) run ./tools/bench -run '^Processes:' -count 10

## bench-spliced: those that are about TLS by name in the kernel (root)
bench-spliced:
	$(GO) run ./tools/bench -run '^TLS by name, spliced'

## half-requests: what ten thousand connections with half requests cost a relay, and how long
## they live (HALF_REQUESTS=flags)
half-requests:
	$(GO) run ./tools/halfrequests $(HALF_REQUESTS)

## soak: hundreds of endpoints come and go by a relay under attack, whose network fails,
## and leave nothing; SOAK is its flags, as -duration=10m (root)
soak:
	$(GO) run ./tools/soak $(SOAK)

## relay-chaos: a connection has three relays, which are killed, drained, cut and slow, and
## gets data through as long as one of them works, with a thousand seeds
relay-chaos:
	QUICWAY_CHAOS_SEEDS=1000 $(GO) test -run TestRelayChaos -timeout 60m ./p2p

## splice-soak: the kernel takes TCP connections over, and gives them back, ten thousand times
## (root; some minutes)
splice-soak:
	QUICWAY_REQUIRE_KERNEL=1 QUICWAY_SPLICE_SOAK=1 $(GO) test -count=1 -timeout 30m -v -run '^TestSoak$$' ./internal/splice

## relay-soak: fifty connections, and three relays, one of which is killed every few seconds for
## two minutes
relay-soak:
	QUICWAY_RELAY_SOAK=1 $(GO) test -count=1 -timeout 15m -v -run '^TestRelaysDie$$' ./tools/relaydemo

## compare: the table in docs/benchmarks.md of LinkQUIC's rules beside ours
compare:
	QUICWAY_WRITE=1 $(GO) test -count=1 -v -run '^TestLinkQUIC$$' ./monitor

## demo-netns: three processes in three network namespaces exchange 1 GiB (root)
demo-netns:
	./tools/ci/demo-netns.sh

## demo-sni: 1 GiB over TLS through examples/sni, in userspace and in the kernel (root; SIZE in
## bytes)
demo-sni:
	$(GO) run ./tools/splicedemo -size $(or $(SIZE),1073741824)

## demo-relays: relays die and stop under a connection; prints a timeline, and for how long the
## connection was silent (KILLS, DRAINS)
demo-relays:
	$(GO) run ./tools/relaydemo -kills $(or $(KILLS),6) -drains $(or $(DRAINS),3)

## demo-nat: two peers behind NATs find a direct path, lose it, and find it again (root)
demo-nat:
	$(GO) run ./examples/nat -size $(or $(SIZE),67108864)
