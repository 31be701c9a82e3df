package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/quicway/quicway/quota"
)

// listenAdmin listens on a loopback address. It returns nil if address is empty.
func listenAdmin(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	addr, err := net.ResolveTCPAddr("tcp", address)
	switch {
	case err != nil:
		return nil, fmt.Errorf("-admin: %w", err)
	case !addr.IP.IsLoopback():
		return nil, fmt.Errorf("-admin %s is not on loopback: anybody who can reach it could change the lists", address)
	}
	return net.Listen("tcp", addr.String())
}

// serveAdmin serves requests that read and change the lists, until ctx is done. It refuses
// requests that a browser sends for a page of another origin.
func serveAdmin(ctx context.Context, listener net.Listener, controller *quota.Controller, list string) error {
	if listener == nil {
		<-ctx.Done()
		return nil
	}
	a := &admin{controller, list}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.show)
	mux.HandleFunc("POST /{list}", a.add)
	mux.HandleFunc("DELETE /{list}", a.remove)
	mux.HandleFunc("POST /reload", a.reload)
	server := &http.Server{Handler: http.NewCrossOriginProtection().Handler(local(mux)), ReadHeaderTimeout: 5 * time.Second}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// local refuses requests whose Host is not a loopback address: somebody else's domain name
// may resolve to one (DNS rebinding).
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]") // without a port
		}
		if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
			http.Error(w, "ask for 127.0.0.1 or [::1]", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

type admin struct {
	controller *quota.Controller
	list       string // file name
}

// show answers with the counters, the top sources, and the entries of the lists.
func (a *admin) show(w http.ResponseWriter, _ *http.Request) {
	var out struct {
		Stats   quota.Stats         `json:"stats"`
		Top     []quota.SourceStats `json:"top"`
		Entries []quota.Entry       `json:"entries"`
	}
	out.Stats, out.Top = a.controller.Stats(), a.controller.Top(20)
	out.Entries = slices.AppendSeq([]quota.Entry{}, a.controller.Entries())
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	_ = enc.Encode(&out) // an error means that the client is gone
}

// add puts a prefix on a list.
func (a *admin) add(w http.ResponseWriter, r *http.Request) {
	e, err := entryOf(r)
	if err == nil {
		err = a.controller.Add(e)
	}
	answer(w, err)
}

// remove removes a prefix from a list.
func (a *admin) remove(w http.ResponseWriter, r *http.Request) {
	e, err := entryOf(r)
	if err == nil && !a.controller.Remove(e.List, e.Prefix) {
		http.Error(w, fmt.Sprintf("%v is not on the %v list", e.Prefix, e.List), http.StatusNotFound)
		return
	}
	answer(w, err)
}

// reload loads the list file again.
func (a *admin) reload(w http.ResponseWriter, _ *http.Request) {
	if a.list == "" {
		answer(w, errors.New("there is no -list to load"))
		return
	}
	answer(w, a.controller.LoadFile(a.list))
}

func answer(w http.ResponseWriter, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// entryOf parses the entry in a request.
func entryOf(r *http.Request) (e quota.Entry, err error) {
	if err := e.List.UnmarshalText([]byte(r.PathValue("list"))); err != nil {
		return e, err
	}
	query := r.URL.Query()
	if e.Prefix, err = quota.ParsePrefix(query.Get("prefix")); err != nil {
		return e, fmt.Errorf("want ?prefix=192.0.2.0/24: %w", err)
	}
	if text := query.Get("ttl"); text != "" {
		ttl, err := time.ParseDuration(text)
		if err != nil || ttl <= 0 {
			return e, fmt.Errorf("ttl %q is not a duration above 0, such as 1h", text)
		}
		e.Expires = time.Now().Add(ttl)
	}
	e.Reason, e.End = query.Get("reason"), query.Get("end") == "1"
	return e, nil
}
