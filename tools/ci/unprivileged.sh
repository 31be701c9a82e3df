#!/usr/bin/env bash
# Runs `go test ./...` as a user without privileges: tests that need root are skipped, and
# all others must pass. It does not vet the packages again. If root runs this script, the user
# gets copies of the tree and of the module cache, since it may not be able to read those of root.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
if [ "$(id -u)" != 0 ]; then
	exec go test -vet=off -p 3 "$@" ./...
fi
user=65534 # nobody
home=$(mktemp -d)
trap 'chmod -R u+w "$home"; rm -rf "$home"' EXIT
umask 022
mkdir "$home/tree" "$home/tmp"
git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- --ignore-failed-read | tar -x -C "$home/tree"

# Take the modules from root's cache, or from the usual proxy if they are not there.
GOPROXY="file://$(go env GOMODCACHE)/cache/download,$(go env GOPROXY)" GOMODCACHE="$home/modules" go mod download
chown -R "$user:$user" "$home"

run=(env -i "HOME=$home" "TMPDIR=$home/tmp" "PATH=$PATH" GOMODCACHE="$home/modules" GOFLAGS=-buildvcs=false \
	"QUICWAY_REQUIRE_CHROMIUM=${QUICWAY_REQUIRE_CHROMIUM-}" go test -vet=off -p 3 "$@" ./...)
(cd "$home/tree" && setpriv --reuid="$user" --regid="$user" --clear-groups "${run[@]}")
