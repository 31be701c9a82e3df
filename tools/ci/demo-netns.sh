#!/usr/bin/env bash
# Runs three programs in three network namespaces that a router connects: dial and
# accept send each other a file through relay, both at the same time. The peers have no
# route to each other, only one to the relay. Needs root and iproute2. SIZE is the size of
# the file (default 1G). With XDP=1 the relay's kernel forwards the packets.
set -euo pipefail
cd "$(git rev-parse --show-toplevel)"
SIZE=${SIZE:-1G}
MAX_RELAY_MIB=${MAX_RELAY_MIB:-256} # limit of the relay's memory

if [ "$(id -u)" != 0 ]; then
	echo "demo-netns: needs root, to make network namespaces" >&2
	exit 1
fi
tag=qw$$
dir=$(mktemp -d)
cleanup() {
	status=$?
	kill $(jobs -p) 2>/dev/null || true
	wait 2>/dev/null || true
	for ns in relay alice bob router; do ip netns del "$tag-$ns" 2>/dev/null || true; done
	if [ "$status" != 0 ]; then tail -n 5 "$dir"/*.log >&2 2>/dev/null || true; fi
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# network N NAME: makes a namespace whose only link, 10.77.N.0/24, is to the router.
network() {
	ip netns add "$tag-$2"
	ip link add "v$1" netns "$tag-$2" type veth peer name "r$1" netns "$tag-router"
	ip -n "$tag-$2" addr add "10.77.$1.2/24" dev "v$1"
	ip -n "$tag-$2" link set "v$1" up
	ip -n "$tag-$2" link set lo up
	ip -n "$tag-router" addr add "10.77.$1.1/24" dev "r$1"
	ip -n "$tag-router" link set "r$1" up
}
in_ns() { ip netns exec "$tag-$1" "${@:2}"; }

ip netns add "$tag-router"
in_ns router sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
network 1 relay
network 2 alice
network 3 bob
ip -n "$tag-relay" route add default via 10.77.1.1
xdp=()
if [ -n "${XDP:-}" ]; then
	# In native mode, a veth receives packets that XDP sends only if it has a program
	# too, so use generic mode. Switch the offload of checksums off, because XDP
	# forwards packets without completing their checksums.
	in_ns relay sh -c 'echo 1 >/proc/sys/net/ipv4/conf/v1/forwarding'
	in_ns alice ethtool -K v2 tx off >/dev/null
	in_ns bob ethtool -K v3 tx off >/dev/null
	xdp=(-xdp v1 -xdp-mode generic)
fi
ip -n "$tag-alice" route add 10.77.1.0/24 via 10.77.2.1
ip -n "$tag-bob" route add 10.77.1.0/24 via 10.77.3.1
if in_ns alice ip route get 10.77.3.2 >/dev/null 2>&1 || in_ns bob ip route get 10.77.2.2 >/dev/null 2>&1; then
	echo "demo-netns: the peers have a route to each other" >&2
	exit 1
fi

go build -o "$dir" ./examples/relay ./examples/dial ./examples/accept
head -c "$SIZE" /dev/urandom >"$dir/sent"

# ip netns exec replaces itself by the program, so that $! is the program's PID.
ip netns exec "$tag-relay" "$dir/relay" -listen 10.77.1.2:4433 "${xdp[@]}" >"$dir/url" 2>"$dir/relay.log" &
relay=$!
until [ -s "$dir/url" ]; do sleep 0.1; done
ip netns exec "$tag-alice" "$dir/dial" -relay "$(cat "$dir/url")" "$dir/sent" </dev/null >"$dir/returned" 2>"$dir/dial.log" &
dial=$!
until grep -qs '^accept ' "$dir/dial.log"; do
	kill -0 "$dial"
	sleep 0.1
done
in_ns bob "$dir/accept" "$(sed -n 's/^accept //p' "$dir/dial.log")" <"$dir/sent" >"$dir/received" 2>"$dir/accept.log"
wait "$dial"
memory=$(awk '/VmHWM/ {print int($2/1024)}' "/proc/$relay/status")
kill "$relay"
wait "$relay"

for peer in dial accept; do
	tr '\r' '\n' <"$dir/$peer.log" | grep -E '^(sent|received|path)' | sed "s/^/$peer: /"
done
echo "relay: $(cat "$dir/relay.log" | sed "s|^|relay: |"); at most $memory MiB of memory"

cmp "$dir/sent" "$dir/received"
cmp "$dir/sent" "$dir/returned"
if [ "$memory" -gt "$MAX_RELAY_MIB" ]; then
	echo "demo-netns: the relay used $memory MiB, more than $MAX_RELAY_MIB" >&2
	exit 1
fi

# quic-go changes its connection ID about every 10 000 packets: 1 GiB takes far more IDs
# than the 16 that the relay knows at the start.
ids=$(sed -n 's/.*connection IDs made \([0-9]*\).*/\1/p' "$dir/dial.log" "$dir/accept.log" | awk '{n += $1} END {print n}')
echo "The files are equal. The peers have made $ids connection IDs."
if [ "$SIZE" = 1G ] && [ "$ids" -le 100 ]; then
	echo "demo-netns: that is too few to show that they rotate" >&2
	exit 1
fi
