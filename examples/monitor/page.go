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
	"strings"
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
	moves int // changes of path
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
		if misled(r) {
			http.Error(w, "this page is for this host alone", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// misled says whether a browser asks loopback for another host: a site whose name
// has come to lead here (DNS rebinding) would read what is none of its business.
func misled(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok || !local.IP.IsLoopback() {
		return false
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil { // no port
		host = strings.Trim(r.Host, "[]")
	}
	ip := net.ParseIP(host)
	return host != "localhost" && (ip == nil || !ip.IsLoopback())
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
			p.moves++
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

// listed is a connection as the page has it.
type listed struct {
	monitor.Connection
	Name string    `json:"version_name"`
	RTTs []float64 `json:"rtts"`
}

// data answers with what the page shows: the latest connections, of those that have
// all words of the query "q" somewhere.
func (p *page) data(w http.ResponseWriter, r *http.Request) {
	words := strings.Fields(strings.ToLower(r.FormValue("q")))
	stats := p.monitor.Stats()
	out := struct {
		Connections []listed      `json:"connections"`
		Found       int           `json:"found"`
		Total       int           `json:"total"`
		Moves       int           `json:"moves"`
		Rates       []rate        `json:"rates"`
		Stats       monitor.Stats `json:"stats"`
	}{Connections: []listed{}, Stats: stats, Total: stats.Tables["connections"].Entries}
	for c := range p.monitor.Connections() {
		if len(words) > 0 && !has(&c, words) {
			continue
		}
		if out.Found++; len(out.Connections) < maxShown {
			out.Connections = append(out.Connections, listed{Connection: c, Name: c.Version.String()})
		} else if len(words) == 0 {
			out.Found = out.Total // without looking at all of them
			break
		}
	}
	p.mu.Lock()
	for i := range out.Connections {
		out.Connections[i].RTTs = slices.Clone(p.rtts[out.Connections[i].Number])
	}
	out.Moves, out.Rates = p.moves, slices.Clone(p.rates)
	p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	json.NewEncoder(w).Encode(out)
}

// has says whether each word, in small letters, is in what one may look for.
func has(c *monitor.Connection, words []string) bool {
	text := strings.Join(append([]string{c.ServerName, c.Version.String(), c.Confidence.String(), c.JA4}, c.ALPN...), " ")
	for _, p := range c.Paths {
		text += " " + p.Client.String() + " " + p.Server.String()
	}
	for _, change := range c.PathChanges {
		text += " " + change.Kind.String()
	}
	text = strings.ToLower(text)
	return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(text, word) })
}
