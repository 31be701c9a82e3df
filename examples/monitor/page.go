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
	"sync"
	"time"

	"github.com/quicway/quicway/monitor"
)

//go:embed page
var assets embed.FS

// Times of the server. A slow client costs a goroutine for so long, and delays no one.
const (
	readTimeout  = 10 * time.Second
	writeTimeout = 10 * time.Second
	idleTimeout  = time.Minute
	maxHeader    = 16 << 10
	turnTimeout  = 5 * time.Second
)

// pageTimes are times of the page.
type pageTimes struct {
	interval  time.Duration // of a client's requests
	keepEnded time.Duration // for how long connections that have ended are shown
}

var usualTimes = pageTimes{interval: time.Second, keepEnded: 10 * time.Second}

// page serves the live page.
type page struct {
	history history
	rates   rates
	catalog catalog
	turn    chan struct{} // has one element, which whoever computes an answer takes
}

// newPage returns a page about a monitor.
func newPage(m *monitor.Monitor, times pageTimes) *page {
	p := &page{
		history: history{keepEnded: times.keepEnded, rtts: make(map[uint64][]roundTrip)},
		rates:   rates{monitor: m},
		catalog: catalog{monitor: m, interval: times.interval},
		turn:    make(chan struct{}, 1),
	}
	p.turn <- struct{}{}
	return p
}

// serve serves the page until ctx is done, also after the end of the capture. wait waits
// until then, and until all goroutines have ended.
func serve(ctx context.Context, m *monitor.Monitor, address string) (wait func() error, err error) {
	listener, err := net.Listen("tcp", local(address))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "http://%v\n", listener.Addr())
	if !loopback(listener.Addr()) {
		fmt.Fprintf(os.Stderr, "whoever reaches %v sees the connections\n", listener.Addr())
	}
	return serveOn(ctx, m, listener), nil
}

// serveOn is serve with a listener.
func serveOn(ctx context.Context, m *monitor.Monitor, listener net.Listener) (wait func() error) {
	p := newPage(m, usualTimes)
	server := &http.Server{
		Handler: p.handler(), BaseContext: func(net.Listener) context.Context { return ctx },
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
	running := p.start(ctx, m)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	closing := make(chan struct{})
	context.AfterFunc(ctx, func() {
		defer close(closing)
		server.Close()
	})
	return func() error {
		if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		<-closing
		running.Wait()
		<-p.turn // nobody computes an answer, and nobody will
		return nil
	}
}

// start starts to collect what the page shows. It ends when ctx is done.
func (p *page) start(ctx context.Context, m *monitor.Monitor) *sync.WaitGroup {
	events := m.Events(ctx)
	var running sync.WaitGroup
	running.Go(func() { p.history.follow(events) })
	running.Go(func() { p.rates.sample(ctx) })
	return &running
}

// handler returns the handler of the page and its data.
func (p *page) handler() http.Handler {
	files, err := fs.Sub(assets, "page")
	if err != nil {
		panic(err) // the folder is embedded
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /data.json", p.data)
	mux.Handle("GET /", typed(http.FileServerFS(files)))
	return guarded(mux)
}

// data answers with what the page shows. The answer is computed when no other is, and is
// written afterwards, so that a slow client delays no one.
func (p *page) data(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), turnTimeout)
	defer cancel()
	select {
	case <-p.turn:
	case <-ctx.Done():
		w.Header().Set("Retry-After", "1")
		http.Error(w, "there are too many requests", http.StatusServiceUnavailable)
		return
	}
	answer, err := json.Marshal(p.answer(queryOf(r), time.Now()))
	p.turn <- struct{}{}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(answer)
}

// answer is what the page shows.
type answer struct {
	Running     bool    `json:"running"` // the capture goes on
	Next        int64   `json:"next_ms"` // after which the client is to ask again
	Rows        []row   `json:"rows"`
	Found       int     `json:"found"` // rows that match the search, also those beyond the limit
	Total       int     `json:"total"` // connections that are kept
	Detail      *detail `json:"detail"`
	PathChanges uint64  `json:"path_changes"`
	Moves       []move  `json:"moves"` // the latest first
	Rates       []rate  `json:"rates"` // the latest last
	Tracked     uint64  `json:"tracked"`
	Lost        uint64  `json:"lost"`
}

// answer returns what the page shows. It is not called concurrently.
func (p *page) answer(q query, now time.Time) *answer {
	shown := p.catalog.look(now, &p.history)
	out := &answer{Running: shown.running, Next: p.catalog.lasts().Milliseconds(), Total: shown.total, Detail: shown.detail(q.detail, &p.history)}
	out.Rows, out.Found = shown.rows(q)
	out.PathChanges, out.Moves = p.history.latestMoves()
	stats := p.rates.monitor.Stats()
	out.Rates, out.Tracked, out.Lost = p.rates.latest(), stats.Tracked, stats.SourceDropped
	return out
}
