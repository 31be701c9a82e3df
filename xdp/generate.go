package xdp

//go:generate go tool bpf2go -tags linux -type session -type rules -type limits -type rule -type turn -type guard -type flow -type prefix -no-global-types datapath bpf/datapath.c -- -I./bpf -O2 -g -Wall -Werror
