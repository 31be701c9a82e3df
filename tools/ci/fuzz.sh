#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each. One target more runs at a time than there
# are processors, so that none is idle while a target starts. The tests of each package are built once.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
export time=${1:-10s}
folder=$(mktemp -d)
cache=$(go env GOCACHE)
export folder cache
trap 'rm -rf "$folder"' EXIT

# binary PACKAGE prints the name of the package's tests.
binary() { echo "$folder/${1//\//_}.test"; }

# build builds the tests of a package, with what guides the fuzzing.
build() { go test -c -fuzz . -o "$(binary "$1")" "$1" || exit 255; } # xargs starts no other

# fuzz runs one target, and prints its output when it has ended. It uses the cache of go test -fuzz.
# If the time of -fuzztime ends while an input is being tried, the test reports a failure without
# naming an input (golang/go#75804); fuzz ignores that. The minimizing of new inputs is limited,
# since it would take all of the time.
fuzz() {
	local log failed=0
	log=$(mktemp)
	(cd "$1" && "$(binary "$1")" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" -test.fuzzminimizetime 20x \
		-test.parallel 1 -test.fuzzcachedir "$cache/fuzz/$(go list)") >"$log" 2>&1 || failed=1
	if [ $failed = 1 ] && ! grep -q 'Failing input' "$log" && grep -q 'context deadline exceeded' "$log"; then
		failed=0
	fi
	echo "== $1 $2"
	cat "$log"
	rm -f "$log"
	[ $failed = 0 ] || exit 255
}
export -f binary build fuzz

targets() {
	for dir in $(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do
		grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | cut -d' ' -f2 | sed "s|^|$dir |"
	done
}
targets | cut -d' ' -f1 | uniq | xargs -P "$(nproc)" -n1 bash -c 'build "$@"' build
targets | xargs -P "$(($(nproc) + 1))" -L1 bash -c 'fuzz "$@"' fuzz
