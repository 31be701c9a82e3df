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

// Limits of the page.
const (
	maxSamples     = 120  // round trips of a connection, and rates
	maxRemembered  = 4096 // connections with round trips
	maxShown       = 500  // connections on the page
	sampleInterval = time.Second
)

// page serves the live page.
type page struct {
	monitor *monitor.Monitor

	mu    sync.Mutex           // guards the following
	rtts  map[uint64][]float64 // in milliseconds, by connection number
	moves int                  // changes of path
	rates []rate               // the latest last
	last  monitor.Stats        // at the latest of rates
}

// rate has the packets of one sampleInterval.
type rate struct {
	Packets uint64 `json:"packets"`
	QUIC    uint64 `json:"quic"`
}

// serve serves the page until ctx is done, also after the end of the capture. wait
// waits until then.
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

// handler returns the handler of the page and its data.
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
		if rebound(r) {
			http.Error(w, "this page is only for this host", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// rebound reports whether a request to a loopback address names another host. Such a
// request comes from a web site whose name was pointed to loopback (DNS rebinding), which
// must not read the data.
func rebound(r *http.Request) bool {
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

// follow collects what only events have: round trips and the number of path changes.
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

// bounded appends to the latest maxSamples values.
func bounded[T any](all []T, next T) []T {
	if len(all) >= maxSamples {
		all = slices.Delete(all, 0, 1)
	}
	return append(all, next)
}

// sample adds a rate every sampleInterval.
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

// listed is a connection in data.json.
type listed struct {
	monitor.Connection
	Name string    `json:"version_name"`
	RTTs []float64 `json:"rtts"`
}

// data answers with the data of the page: the counters, and the latest connections
// that match all words of the query "q".
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
			out.Found = out.Total // every connection matches
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

// has reports whether each word is in the names, addresses or path changes of a
// connection. Words are in lower case.
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
