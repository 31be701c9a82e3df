#!/usr/bin/env bash
# Compiles and vets the module for the systems that it supports, links a program for each, and checks
# that only the Linux build depends on packages of cilium. (go build would link all programs.) For the
# systems that few people use, it compiles the library only, and that program.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"

export CGO_ENABLED=0
for target in linux/arm64 darwin/arm64 windows/amd64 linux/386 linux/s390x freebsd/amd64; do
	export GOOS=${target%/*} GOARCH=${target#*/}
	echo "== $target"
	case $target in
	linux/arm64) go list -export ./... >/dev/null ;;
	darwin/arm64 | windows/amd64) go vet ./... ;;
	*) go list ./... | grep -vE '/(examples|tools)(/|$)' | xargs go list -export >/dev/null ;;
	esac
	go build -o /dev/null ./examples/forward
	if [ "$GOOS" != linux ] && go list -deps ./... | grep cilium; then
		echo "a $GOOS build pulls in the packages above" >&2
		exit 1
	fi
done
