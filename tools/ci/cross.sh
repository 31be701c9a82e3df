#!/usr/bin/env bash
# Builds and vets the module for the systems that it supports, and checks that only
# the Linux build depends on packages of cilium.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"

for target in linux/amd64 linux/arm64 linux/386 linux/s390x darwin/arm64 windows/amd64 freebsd/amd64; do
	os=${target%/*} arch=${target#*/}
	echo "== $target"
	GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build ./...
	case $target in
	linux/amd64 | darwin/arm64 | windows/amd64 | linux/s390x)
		GOOS=$os GOARCH=$arch CGO_ENABLED=0 go vet ./...
		;;
	esac
	if [ "$os" != linux ] && GOOS=$os GOARCH=$arch CGO_ENABLED=0 go list -deps ./... | grep cilium; then
		echo "a $os build pulls in the packages above" >&2
		exit 1
	fi
done
