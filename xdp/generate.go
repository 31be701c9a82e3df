package xdp

//go:generate go tool bpf2go -tags linux -type session -type rules -type limits -type rule -type turn -type guard -type origin -type places -type homes -type prefix -type spin -type lane -type track -no-global-types datapath bpf/datapath.c -- -I./bpf -O2 -g -Wall -Werror
//go:generate go tool bpf2go -tags linux -no-global-types egress bpf/egress.c -- -I./bpf -O2 -g -Wall -Werror
//go:generate go tool bpf2go -tags linux -no-global-types lesson bpf/lesson.c -- -I./bpf -O2 -g -Wall -Werror
