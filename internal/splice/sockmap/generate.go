package sockmap

//go:generate go tool bpf2go -tags linux -no-global-types sockmap bpf/sockmap.c -- -I../../datapath/bpf -O2 -g -Wall -Werror
