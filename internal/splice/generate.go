package splice

//go:generate go tool bpf2go -tags linux -type half -type pair -type flow_set -no-global-types splice bpf/splice.c -- -I./bpf -I../datapath/bpf -O2 -g -Wall -Werror -mcpu=v3 -fno-strict-aliasing
