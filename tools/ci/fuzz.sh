#!/usr/bin/env bash
# Runs every fuzz target of the module for the time given, one after the other.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
time=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz runs one target. The deadline of -fuzztime may hit an input that is
# being tried, and is then reported as if that had failed (golang/go#75804):
# such an end, which names no input, is none. Inputs that are new are not made
# smaller for long, which would take all of the time.
fuzz() {
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 20x "$1" 2>&1 | tee "$log" && return
	! grep -q 'Failing input' "$log" && grep -q 'context deadline exceeded' "$log"
}

for dir in $(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do
	for target in $(grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | cut -d' ' -f2); do
		echo "== $dir $target"
		fuzz "$dir" "$target" || exit 1
	done
done
