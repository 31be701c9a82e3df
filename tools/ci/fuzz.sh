#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each, one on each processor.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
export time=${1:-10s}

# fuzz runs one target, and prints its output when it has ended. If the time of -fuzztime ends
# while an input is being tried, go test reports a failure without naming an input
# (golang/go#75804); fuzz ignores that. The minimizing of new inputs is limited, since it would
# take all of the time.
fuzz() {
	local log failed=0
	log=$(mktemp)
	go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 20x -parallel 1 "$1" >"$log" 2>&1 || failed=1
	if [ $failed = 1 ] && ! grep -q 'Failing input' "$log" && grep -q 'context deadline exceeded' "$log"; then
		failed=0
	fi
	echo "== $1 $2"
	cat "$log"
	rm -f "$log"
	[ $failed = 0 ] || exit 255 # xargs starts no other target
}
export -f fuzz

for dir in $(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u); do
	grep -hoE '^func Fuzz[A-Za-z0-9_]+' "$dir"/*_test.go | cut -d' ' -f2 | sed "s|^|$dir |"
done | xargs -P "$(nproc)" -L 1 bash -c 'fuzz "$@"' fuzz
