#!/usr/bin/env bash
# Runs every fuzz target of the module, one after the other, for the given time each.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
time=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# fuzz runs one target. If the time of -fuzztime ends while an input is being tried, go
# test reports a failure without naming an input (golang/go#75804); fuzz ignores that. The
# minimizing of new inputs is limited, since it would take all of the time.
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
