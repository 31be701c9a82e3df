package main

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/quicway/quicway/monitor"
)

//go:embed page
var assets embed.FS

// What the page remembers.
const (
	maxSamples     = 120 // round trips of a connection, and rates
	maxRemembered  = 4096
	maxShown       = 500
	sampleInterval = time.Second
)

// page is the state behind the live page.
type page struct {
	monitor *monitor.Monitor

	mu    sync.Mutex // guards the following
	rtts  map[uint64][]float64
	moves []monitor.Event
	rates []rate
	last  monitor.Stats
}

// rate is what passed in an interval.
type rate struct {
	Packets uint64 `json:"packets"`
	QUIC    uint64 `json:"quic"`
}

// serve serves the page until ctx is done. wait returns then, for a capture that
// has ended is still shown.
func serve(ctx context.Context, m *monitor.Monitor, address string) (wait func() error, err error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &page{monitor: m, rtts: make(map[uint64][]float64)}
	server := &http.Server{Handler: p.handler(), ReadHeaderTimeout: 10 * time.Second}
	events := m.Events(ctx)
	go p.follow(events)
	go p.sample(ctx)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	context.AfterFunc(ctx, func() { server.Close() })
	fmt.Fprintf(os.Stderr, "http://%v\n", listener.Addr())
	return func() error {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}, nil
}

func (p *page) handler() http.Handler {
	files, err := fs.Sub(assets, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /data.json", p.data)
	mux.Handle("GET /", http.FileServerFS(files))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		mux.ServeHTTP(w, r)
	})
}

// follow remembers what only events tell.
func (p *page) follow(events func(func(monitor.Event) bool)) {
	for e := range events {
		p.mu.Lock()
		switch e.Kind {
		case monitor.EventRTT:
			if _, ok := p.rtts[e.Connection.Number]; ok || len(p.rtts) < maxRemembered {
				p.rtts[e.Connection.Number] = bounded(p.rtts[e.Connection.Number], float64(e.RTT)/1e6)
			}
		case monitor.EventPathChanged:
			p.moves = bounded(p.moves, e)
		case monitor.EventClosed:
			delete(p.rtts, e.Connection.Number)
		}
		p.mu.Unlock()
	}
}

func bounded[T any](all []T, next T) []T {
	if len(all) >= maxSamples {
		all = slices.Delete(all, 0, 1)
	}
	return append(all, next)
}

// sample takes the rates.
func (p *page) sample(ctx context.Context) {
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		now := p.monitor.Stats()
		p.mu.Lock()
		p.rates = bounded(p.rates, rate{now.Packets - p.last.Packets, now.Tracked - p.last.Tracked})
		p.last = now
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// data answers with all that the page shows.
func (p *page) data(w http.ResponseWriter, r *http.Request) {
	type shown struct {
		monitor.Connection
		Name string    `json:"version_name"`
		RTTs []float64 `json:"rtts"`
	}
	type move struct {
		Number uint64             `json:"number"`
		Name   string             `json:"name"`
		Change monitor.PathChange `json:"change"`
	}
	stats := p.monitor.Stats()
	out := struct {
		Connections []shown       `json:"connections"`
		Total       int           `json:"total"`
		Moves       []move        `json:"moves"`
		Rates       []rate        `json:"rates"`
		Stats       monitor.Stats `json:"stats"`
	}{Connections: []shown{}, Moves: []move{}, Stats: stats, Total: stats.Tables["connections"].Entries}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.monitor.Connections() {
		if len(out.Connections) == maxShown {
			break
		}
		out.Connections = append(out.Connections, shown{c, c.Version.String(), p.rtts[c.Number]})
	}
	for _, e := range p.moves {
		out.Moves = append(out.Moves, move{e.Connection.Number, e.Connection.ServerName, *e.Change})
	}
	out.Rates = p.rates
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(out)
}
