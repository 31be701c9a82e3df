#!/usr/bin/env bash
# Tests the packages that run on quic-go with a version of quic-go, by default the newest commit.
# It works in a copy of what git knows of the tree, and changes nothing.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
version=${1:-master}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$copy"
cd "$copy"
go get "github.com/quic-go/quic-go@$version"
go mod tidy
go list -m github.com/quic-go/quic-go
go test ./cid ./monitor ./p2p ./quota ./relay/... ./internal/{tunnel,udp,wire} ./examples/...
