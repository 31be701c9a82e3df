package terminal

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"
)

// maxText is the limit of bytes of a text from the network.
const maxText = 255

// clean returns a text from the network as printable ASCII. Other characters become escape
// sequences of Go: a terminal would act on control characters, reorder what is written from
// right to left, and may disagree about the width of others. Server names are ASCII by
// RFC 6066 §3, so that nothing legitimate is lost.
func clean(s string) string {
	more := ""
	if len(s) > maxText {
		s, more = strings.ToValidUTF8(s[:maxText], ""), "..."
	}
	quoted := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`) + more
}

// cleanAll cleans and joins texts from the network.
func cleanAll(all []string) string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = clean(s)
	}
	return strings.Join(out, ", ")
}

// orDash returns a text, or a dash for none.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// fit shortens or pads a text to a width in cells.
func fit(s string, width int) string {
	s = ansi.Truncate(s, max(width, 0), "…")
	return s + strings.Repeat(" ", max(width-ansi.StringWidth(s), 0))
}

// tail is like fit, but keeps the end of a text: the port of an address, and the domain of a
// name, which its owner cannot choose freely. The text is ASCII.
func tail(s string, width int) string {
	if len(s) <= width || width < 1 {
		return fit(s, width)
	}
	return "…" + s[len(s)-width+1:]
}

// alignRight shortens or pads a text to a width in cells, with the padding before it.
func alignRight(s string, width int) string {
	return strings.Repeat(" ", max(width-ansi.StringWidth(s), 0)) + ansi.Truncate(s, max(width, 0), "…")
}

// amount formats a number in at most five characters.
func amount(n float64) string {
	units := [...]string{"", "k", "M", "G", "T", "P"}
	i := 0
	for n >= 999.5 && i < len(units)-1 {
		n, i = n/1000, i+1
	}
	digits := 0
	if i > 0 && n < 99.95 {
		digits = 1
	}
	return strconv.FormatFloat(n, 'f', digits, 64) + units[i]
}

// count formats a number of things, such as 1 packet and 2 packets.
func count[N int | uint64](n N, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return amount(float64(n)) + " " + thing
}

// roundTrip formats a round trip in at most six characters, or a dash for 0.
func roundTrip(d time.Duration) string {
	switch ms := float64(d) / float64(time.Millisecond); {
	case d <= 0:
		return "-"
	case ms < 1:
		return strconv.FormatFloat(ms*1000, 'f', 0, 64) + "µs"
	case ms < 99.95:
		return strconv.FormatFloat(ms, 'f', 1, 64) + "ms"
	case ms < 9999.5:
		return strconv.FormatFloat(ms, 'f', 0, 64) + "ms"
	default:
		return strconv.FormatFloat(math.Min(ms/1000, 9999), 'f', 0, 64) + "s"
	}
}

// period formats the age of a connection in at most five characters.
func period(d time.Duration) string {
	switch s := int64(max(d, 0) / time.Second); {
	case s < 60:
		return strconv.FormatInt(s, 10) + "s"
	case s < 3600:
		return strconv.FormatInt(s/60, 10) + "m" + pad2(s%60)
	case s < 100*3600:
		return strconv.FormatInt(s/3600, 10) + "h" + pad2(s/60%60)
	default:
		return strconv.FormatInt(s/86400, 10) + "d"
	}
}

func pad2(n int64) string {
	if n < 10 {
		return "0" + strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10)
}
