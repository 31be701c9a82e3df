package main

import (
	"context"
	"fmt"
	"os"

	"github.com/quicway/quicway/monitor"
)

func main() {
	src, err := monitor.OpenFile(os.Args[len(os.Args)-1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	m, err := monitor.New(src, nil)
	if err != nil {
		panic(err)
	}
	if err := m.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	e := monitor.NewEncoder(os.Stdout)
	for c := range m.Connections() {
		e.Connection(&c)
	}
}
