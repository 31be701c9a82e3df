package splice

//go:generate go tool bpf2go -tags linux -type view -type past -no-global-types peek bpf/peek.c -- -I./bpf -I../datapath/bpf -O2 -g -Wall -Werror
