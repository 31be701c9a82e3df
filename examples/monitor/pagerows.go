package main

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/quicway/quicway/monitor"
)

// Limits of a query.
const (
	defaultRows = 100
	maxRows     = 500
	maxSearch   = 200 // bytes
	maxListed   = 3   // protocols in a row
)

// query is what a client asks for.
type query struct {
	words      []string // in lower case; each must be found
	by         string   // the column to sort by
	descending bool
	rows       int
	detail     uint64 // the number of a connection, or 0
}

// queryOf returns the query of a request. What is wrong in it has its default.
func queryOf(r *http.Request) query {
	q := query{words: strings.Fields(strings.ToLower(cut(r.FormValue("q"), maxSearch)))}
	if q.by = r.FormValue("sort"); columns[q.by] == nil {
		q.by = "started"
	}
	q.descending = r.FormValue("order") != "ascending"
	q.rows, _ = strconv.Atoi(r.FormValue("rows"))
	if q.rows <= 0 {
		q.rows = defaultRows
	}
	q.rows = min(q.rows, maxRows)
	q.detail, _ = strconv.ParseUint(r.FormValue("detail"), 10, 64)
	return q
}

// row is a connection in the list.
type row struct {
	Number  uint64    `json:"number"`
	Name    string    `json:"name"`
	Client  string    `json:"client"`
	Server  string    `json:"server"`
	State   string    `json:"state"`
	Why     string    `json:"why"` // what the state or the connection is known by
	Version string    `json:"version"`
	ALPN    []string  `json:"alpn"`
	RTT     float64   `json:"rtt_ms"` // 0: not known
	RTTBy   string    `json:"rtt_by"` // handshake or spin
	Packets uint64    `json:"packets"`
	Bytes   uint64    `json:"bytes"`
	Moves   int       `json:"moves"`
	First   time.Time `json:"first"`
	Last    time.Time `json:"last"`
	Left    int64     `json:"left_ms"` // until a connection that has ended disappears; 0: it stays
}

// columns are those that the list can be sorted by.
var columns = map[string]func(a, b *entry, clock time.Time) int{
	"name": func(a, b *entry, _ time.Time) int {
		return strings.Compare(nameOf(&a.Connection), nameOf(&b.Connection))
	},
	"client": func(a, b *entry, _ time.Time) int {
		return pathOf(&a.Connection).Client.Compare(pathOf(&b.Connection).Client)
	},
	"server": func(a, b *entry, _ time.Time) int {
		return pathOf(&a.Connection).Server.Compare(pathOf(&b.Connection).Server)
	},
	"state":   func(a, b *entry, clock time.Time) int { return cmp.Compare(a.state(clock), b.state(clock)) },
	"version": func(a, b *entry, _ time.Time) int { return cmp.Compare(a.Version, b.Version) },
	"rtt": func(a, b *entry, _ time.Time) int {
		x, _ := rttOf(&a.Connection)
		y, _ := rttOf(&b.Connection)
		return cmp.Compare(x, y)
	},
	"traffic": func(a, b *entry, _ time.Time) int { return cmp.Compare(bytesOf(&a.Connection), bytesOf(&b.Connection)) },
	"moves":   func(a, b *entry, _ time.Time) int { return cmp.Compare(movesOf(&a.Connection), movesOf(&b.Connection)) },
	"started": func(a, b *entry, _ time.Time) int { return cmp.Compare(a.Number, b.Number) },
}

// rows returns the first rows that match a query, in its order, and how many match.
func (l *listing) rows(q query) (rows []row, found int) {
	var all []*entry
	for _, e := range l.all {
		if l.matches(e, q.words) {
			all = append(all, e)
		}
	}
	by := columns[q.by]
	slices.SortFunc(all, func(a, b *entry) int {
		if q.descending {
			a, b = b, a
		}
		return cmp.Or(by(a, b, l.clock), cmp.Compare(a.Number, b.Number))
	})
	rows = []row{}
	for _, e := range all[:min(len(all), q.rows)] {
		rows = append(rows, l.row(e))
	}
	return rows, len(all)
}

// matches reports whether each word is in the state or in the other texts of a connection.
func (l *listing) matches(e *entry, words []string) bool {
	if len(words) == 0 {
		return true
	}
	text, state := e.words(), e.state(l.clock).String()
	return !slices.ContainsFunc(words, func(word string) bool {
		return !strings.Contains(text, word) && !strings.Contains(state, word)
	})
}

// row returns the row of a connection.
func (l *listing) row(e *entry) row {
	c, p := &e.Connection, pathOf(&e.Connection)
	rtt, by := rttOf(c)
	out := row{
		Number: c.Number, Name: nameOf(c), Client: p.Client.String(), Server: p.Server.String(),
		State: e.state(l.clock).String(), Why: c.Evidence, Version: c.Version.String(), ALPN: []string{},
		RTT: float64(rtt) / 1e6, RTTBy: by, Packets: c.FromClient.Packets + c.FromServer.Packets,
		Bytes: bytesOf(c), Moves: movesOf(c), First: c.First, Last: c.Last,
	}
	for _, protocol := range c.ALPN[:min(len(c.ALPN), maxListed)] {
		out.ALPN = append(out.ALPN, cut(protocol, maxName))
	}
	if e.state(l.clock) == monitor.StateEnded {
		left, _ := l.left(e)
		out.Why, out.Left = e.why(), left.Milliseconds()
	}
	return out
}

// rttOf returns the round trip by the spin bit, or else by the handshake.
func rttOf(c *monitor.Connection) (rtt time.Duration, by string) {
	if rtt = c.SpinRTT.Duration(); rtt != 0 {
		return rtt, "spin"
	}
	if c.Handshake.ServerSide != 0 && c.Handshake.ClientSide != 0 {
		return (c.Handshake.ServerSide + c.Handshake.ClientSide).Duration(), "handshake"
	}
	return 0, ""
}

func bytesOf(c *monitor.Connection) uint64 { return c.FromClient.Bytes + c.FromServer.Bytes }

func movesOf(c *monitor.Connection) int { return len(c.PathChanges) + c.PathChangesOmitted }
