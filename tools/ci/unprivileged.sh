#!/usr/bin/env bash
# Runs `go test ./...` as a user who may nothing: what needs root is skipped, and
# all else must pass. Root, which it may be run by, has a tree and caches that
# nobody else can read; so the user has copies of them.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
if [ "$(id -u)" != 0 ]; then
	exec go test "$@" ./...
fi
user=65534 # nobody, everywhere
home=$(mktemp -d)
trap 'chmod -R u+w "$home"; rm -rf "$home"' EXIT
umask 022
mkdir "$home/tree" "$home/tmp"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$home/tree"

# The modules come from root's cache, or from where they came from into that.
GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GOMODCACHE="$home/modules" go mod download
chown -R "$user:$user" "$home"

run=(env -i "HOME=$home" "TMPDIR=$home/tmp" "PATH=$PATH" GOMODCACHE="$home/modules" GOFLAGS=-buildvcs=false go test "$@" ./...)
(cd "$home/tree" && setpriv --reuid="$user" --regid="$user" --clear-groups "${run[@]}")
