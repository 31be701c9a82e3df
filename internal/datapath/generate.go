package datapath

//go:generate go tool bpf2go -tags linux -type leg -type local -type hop -type common -type route_set -type rules -type limits -type rule -type refusal -type guard -type origin -type attempt_set -type denied_set -type prefix -type spin -type direction -type pair -type flow -type slot_set -no-global-types datapath bpf/datapath.c -- -I./bpf -O2 -g -Wall -Werror
//go:generate go tool bpf2go -tags linux -no-global-types egress bpf/egress.c -- -I./bpf -O2 -g -Wall -Werror
