package terminal

import (
	"strings"
	"testing"
	"time"
	"unicode"
)

// TestClean checks that texts from the network become printable ASCII.
func TestClean(t *testing.T) {
	for text, want := range map[string]string{
		"name.example": "name.example", "": "", "a b": "a b", "\x1b[2J": `\x1b[2J`, "a\r\n\tb": `a\r\n\tb`,
		"a\u202eb": `a\u202eb`, "日": `\u65e5`, "\xff": `\xff`, `a\b"c"`: `a\\b"c"`, "\u009b": `\u009b`,
		strings.Repeat("é", 10000): strings.Repeat(`\u00e9`, maxText/2) + "...",
	} {
		if got := clean(text); got != want {
			t.Errorf("%.20q: got %s, want %s", text, got, want)
		}
	}
}

// FuzzClean checks that no text can make a terminal do anything.
func FuzzClean(f *testing.F) {
	f.Add("name.example")
	f.Add("\x1b]0;a\x07\u202e\xff")
	f.Fuzz(func(t *testing.T, text string) {
		got := clean(text)
		if i := strings.IndexFunc(got, func(c rune) bool { return c > unicode.MaxASCII || !unicode.IsPrint(c) }); i >= 0 {
			t.Errorf("%q: got %q", text, got)
		}
		if len(got) > 10*maxText+3 {
			t.Errorf("got %d bytes", len(got))
		}
	})
}

// TestUnits checks numbers and times, and that they fit into their columns.
func TestUnits(t *testing.T) {
	for n, want := range map[float64]string{0: "0", 1: "1", 999: "999", 999.6: "1.0k", 1000: "1.0k", 99900: "99.9k", 99960: "100k", 999999: "1.0M", 1e12: "1.0T", 1e18: "1000P"} {
		if got := amount(n); got != want || len(got) > 5 {
			t.Errorf("%v: got %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		0: "-", -1: "-", 400: "0µs", 850 * time.Microsecond: "850µs", 1500 * time.Microsecond: "1.5ms", 99949 * time.Microsecond: "99.9ms",
		100 * time.Millisecond: "100ms", 12 * time.Second: "12s",
	} {
		if got := roundTrip(d); got != want || len([]rune(got)) > 6 {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{
		-1: "0s", 59 * time.Second: "59s", 60 * time.Second: "1m00", 3599 * time.Second: "59m59", 3600 * time.Second: "1h00",
		100*time.Hour - 1: "99h59", 100 * time.Hour: "4d",
	} {
		if got := period(d); got != want || len(got) > 5 {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
}

// TestFit checks that texts get the width of their column.
func TestFit(t *testing.T) {
	for _, test := range []struct{ got, want string }{
		{fit("abc", 5), "abc  "}, {fit("abcdef", 5), "abcd…"}, {fit("a", 0), ""}, {fit("a", -1), ""},
		{tail("192.0.2.1:443", 20), "192.0.2.1:443       "}, {tail("192.0.2.1:443", 8), "…2.1:443"}, {tail("abc", 1), "…"}, {tail("abc", 0), ""},
		{alignRight("ab", 4), "  ab"}, {alignRight("abcdef", 4), "abc…"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// TestSpark checks sparklines.
func TestSpark(t *testing.T) {
	for _, test := range []struct {
		values []float32
		width  int
		want   string
	}{
		{nil, 5, ""}, {[]float32{3}, 5, "▅"}, {[]float32{1, 2, 3}, 5, "▁▄█"}, {[]float32{1, 2, 3}, 2, "▁█"}, {[]float32{1}, 0, ""},
		{[]float32{1, 1, 1}, 5, "▅▅▅"}, {[]float32{0, 1, 2, 3, 4, 5, 6, 7}, 8, "▁▂▃▄▅▆▇█"},
	} {
		if got := spark(test.values, test.width); got != test.want {
			t.Errorf("%v: got %s, want %s", test.values, got, test.want)
		}
	}
}
