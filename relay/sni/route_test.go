package sni

import (
	"errors"
	"strings"
	"testing"
)

// TestRoutes checks which route a hello gets.
func TestRoutes(t *testing.T) {
	route := func(name, names string, alpn ...string) *Route {
		return &Route{Name: name, Names: strings.Split(names, " "), ALPN: alpn}
	}
	all := []*Route{
		route("exact", "a.test A.Exact.test."),
		route("acme", "a.test *.b.test", "acme-tls/1"),
		route("wild", "*.b.test"),
		route("deep", "*.c.b.test"),
		route("only h2", "*.d.test", "h2"),
		route("idn", "bücher.test"),
		{Name: "nameless", Names: []string{""}},
		{Name: "plain", NotTLS: true},
	}
	for _, other := range []struct {
		name   string
		routes []*Route
		or     string
	}{{"without default", all, ""}, {"with default", append(all, route("default", "*")), "default"}} {
		table, err := newTable(other.routes)
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			name, alpn string
			want       string
		}{
			{"a.test", "", "exact"},
			{"a.exact.test", "h2", "exact"},
			{"a.test", "acme-tls/1", "acme"},
			{"x.a.test", "", other.or},
			{"b.test", "", other.or},
			{"x.b.test", "", "wild"},
			{"x.y.b.test", "", "wild"},
			{"x.b.test", "acme-tls/1", "acme"},
			{"c.b.test", "", "wild"},
			{"x.c.b.test", "", "deep"},
			{"x.c.b.test", "acme-tls/1", "deep"},
			{"x.d.test", "h2", "only h2"},
			{"x.d.test", "http/1.1", other.or},
			{"xn--bcher-kva.test", "", "idn"},
			{"", "", "nameless"},
			{"test", "", other.or},
			{".b.test", "", "wild"},
			{"*", "", other.or},
		} {
			got := ""
			if r := table.find(&Hello{TLS: true, ServerName: tc.name, ALPN: strings.Fields(tc.alpn)}); r != nil {
				got = r.Name
			}
			if got != tc.want {
				t.Errorf("%s: %q with %q goes to %q, want %q", other.name, tc.name, tc.alpn, got, tc.want)
			}
		}
		if r := table.find(&Hello{ServerName: "a.test"}); r.Name != "plain" {
			t.Errorf("a stream that is not TLS goes to %q", r.Name)
		}
	}
}

// TestBadRoutes checks that routes that cannot work are refused, with their names.
func TestBadRoutes(t *testing.T) {
	plain := func() *Route { return &Route{Name: "r", Names: []string{"a.test"}} }
	with := func(f func(*Route)) []*Route {
		r := plain()
		f(r)
		return []*Route{r}
	}
	for want, routes := range map[string][]*Route{
		"nil":                             {nil},
		"neither Names nor NotTLS":        {{Name: "r"}},
		"both without ALPN":               {plain(), plain()},
		"has it twice":                    with(func(r *Route) { r.Names = []string{"a.test", "A.test"} }),
		"both have NotTLS":                {{NotTLS: true}, {NotTLS: true}},
		`"a.*.test"`:                      with(func(r *Route) { r.Names = []string{"a.*.test"} }),
		`"a b"`:                           with(func(r *Route) { r.Names = []string{"a b"} }),
		`upstream "host", want host:port`: with(func(r *Route) { r.Upstreams = []string{"host"} }),
		"unknown balance 9":               with(func(r *Route) { r.Balance = 9 }),
		"SendProxy is 3":                  with(func(r *Route) { r.SendProxy = 3 }),
		"MaxConnections is -1":            with(func(r *Route) { r.MaxConnections = -1 }),
	} {
		if _, err := newTable(routes); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
