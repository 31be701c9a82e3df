# The whole interface of development: see CONTRIBUTING.md.
GO       ?= go
FUZZTIME ?= 10s
BENCH    ?= .

.PHONY: all generate lint test test-kernel test-unprivileged test-vm test-vm-all fuzz cross bench bench-kernel bench-quota bench-monitor bench-sni soak half-requests compare demo-netns demo-nat

all: generate lint test

## generate: the BPF objects, which need clang-19 and llvm-strip-19
generate:
	BPF2GO_CC=clang-19 BPF2GO_STRIP=llvm-strip-19 $(GO) generate ./...

## lint: formatting, vet, staticcheck, and an exact go.mod
lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "gofmt would change:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) mod tidy -diff

## test: what needs no privileges, with the race detector
test:
	$(GO) test -race -shuffle=on ./...

## test-kernel: the same, as root, with real network namespaces; skips nothing
test-kernel:
	QUICWAY_REQUIRE_KERNEL=1 $(GO) test -race -shuffle=on ./...

## test-unprivileged: as whoever has just cloned this, also if root runs it
test-unprivileged:
	./tools/ci/unprivileged.sh

## cross: the systems that the library must build on, and what it must not pull in
cross:
	./tools/ci/cross.sh

## test-vm: the kernel's program on the kernels that docs/kernels.md promises, in virtual
## machines, and the table there (root, apt; about ten minutes)
test-vm:
	$(GO) run ./tools/vm -kernel 6.1,6.12 -matrix docs/kernels.md ./internal/datapath
	$(GO) run ./tools/vm -kernel 6.1,6.12 -run Parity ./relay ./quota ./monitor

## test-vm-all: all tests of these packages there, and the program on other processors
## (an hour)
test-vm-all: test-vm
	$(GO) run ./tools/vm -kernel 6.1,6.12 -timeout 2h -skip 'Chaos|Experiment|LinkQUIC|ManyFlows|TestSample$$|^Example' ./relay ./quota ./monitor
	$(GO) run ./tools/vm -kernel 6.1,6.12 -run 'Hosts|Kernel|NAT' ./p2p
	$(GO) run ./tools/vm -arch arm64 -kernel 6.1,6.12 -matrix docs/kernels.md ./internal/datapath
	$(GO) run ./tools/vm -arch s390x -kernel 6.1 -matrix docs/kernels.md ./internal/datapath
	$(GO) run ./tools/vm -arch arm64 -kernel 6.12 -run Parity ./relay ./quota ./monitor
	$(GO) run ./tools/vm -arch s390x -kernel 6.1 -run Parity ./relay ./quota ./monitor

## fuzz: every fuzz target for FUZZTIME
fuzz:
	./tools/ci/fuzz.sh $(FUZZTIME)

## bench: the tables in docs/benchmarks.md; BENCH is a regexp over their titles (root)
bench:
	$(GO) run ./tools/bench -run '$(BENCH)'

## bench-kernel: those that are about the relay in the kernel (root)
bench-kernel:
	$(GO) run ./tools/bench -run '^Kernel:'

## bench-quota: those that are about the quota, with eQUIC's experiment (root)
bench-quota:
	$(GO) run ./tools/bench -run '[Qq]uota' -count 10

## bench-monitor: those that are about the monitor (root)
bench-monitor:
	$(GO) run ./tools/bench -run Monitor

## bench-sni: those that are about TLS by name, beside nginx and HAProxy if they are installed
bench-sni:
	$(GO) run ./tools/bench -run '^TLS by name'

## half-requests: what ten thousand connections with half requests cost a relay, and how long
## they live (HALF_REQUESTS=flags)
half-requests:
	$(GO) run ./tools/halfrequests $(HALF_REQUESTS)

## soak: hundreds of endpoints come and go by a relay under attack, whose network fails,
## and leave nothing; SOAK is its flags, as -duration=10m (root)
soak:
	$(GO) run ./tools/soak $(SOAK)

## compare: the table in docs/benchmarks.md of LinkQUIC's rules beside ours
compare:
	QUICWAY_WRITE=1 $(GO) test -count=1 -v -run '^TestLinkQUIC$$' ./monitor

## demo-netns: three processes in three network namespaces exchange 1 GiB (root)
demo-netns:
	./tools/ci/demo-netns.sh

## demo-nat: two peers behind NATs find a direct path, lose it, and find it again (root)
demo-nat:
	$(GO) run ./examples/nat -size $(or $(SIZE),67108864)
