package xdp

//go:generate go tool bpf2go -tags linux -type session -no-global-types datapath bpf/datapath.c -- -I./bpf -O2 -g -Wall -Werror
