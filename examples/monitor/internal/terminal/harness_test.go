package terminal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/quicway/quicway/monitor"
)

// start is the time of the first snapshot of a test.
var start = time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)

// connection returns a connection that began some seconds before start.
func connection(number uint64, name string, seconds int) monitor.Connection {
	begin := start.Add(-time.Duration(seconds) * time.Second)
	return monitor.Connection{
		Number: number, State: monitor.StateOpen, Confidence: monitor.Proven, Version: 1,
		TLS:       monitor.TLS{ServerName: name, ALPN: []string{"h3"}},
		First:     begin,
		Last:      start,
		Handshake: monitor.HandshakeRTT{ServerSide: monitor.Milliseconds(number) * 1e6, ClientSide: 1e6},
		Paths: []monitor.Path{{
			Client: netip.MustParseAddrPort(fmt.Sprintf("192.0.2.%d:50000", number%200)),
			Server: netip.MustParseAddrPort("198.51.100.2:443"), Validated: true, Active: true,
			First: begin, Last: start,
		}},
		FromClient: monitor.Traffic{Packets: 10 * number, Bytes: 1000 * number},
		FromServer: monitor.Traffic{Packets: 20 * number, Bytes: 9000},
	}
}

// three are connections whose order differs by name, age, and round trip.
func three() []monitor.Connection {
	return []monitor.Connection{connection(1, "cherry.test", 20), connection(2, "apple.test", 30), connection(3, "banana.test", 10)}
}

// view is a model that is fed by a book, without a monitor and without a terminal.
type view struct {
	*testing.T
	*model
	book     *book
	at       time.Time
	moves    []move
	followed uint64
}

func newView(t *testing.T) *view {
	v := &view{T: t, book: newBook(), at: start}
	v.model = newModel(func(number uint64) { v.followed = number })
	v.size(fullWidth, fullHeight)
	return v
}

// show feeds a snapshot of connections that are kept, a second after the one before.
func (v *view) show(kept []monitor.Connection, closed ...monitor.Event) {
	v.book.watch(v.followed)
	rows := v.book.update(v.at, slices.Values(kept), func() []monitor.Event { return closed })
	v.send(&snapshot{at: v.at, rows: rows, whole: v.book.whole, moves: v.moves, moved: uint64(len(v.moves))})
	v.at = v.at.Add(time.Second)
}

func (v *view) send(message tea.Msg) { v.Update(message) }

func (v *view) size(width, height int) { v.send(tea.WindowSizeMsg{Width: width, Height: height}) }

// press presses keys: names such as "enter", or texts.
func (v *view) press(keys ...string) {
	named := map[string]tea.Key{
		"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown},
		"left": {Code: tea.KeyLeft}, "right": {Code: tea.KeyRight}, "end": {Code: tea.KeyEnd}, "home": {Code: tea.KeyHome},
		"pgdown": {Code: tea.KeyPgDown}, "pgup": {Code: tea.KeyPgUp}, "backspace": {Code: tea.KeyBackspace},
		"ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+u": {Code: 'u', Mod: tea.ModCtrl}, "ctrl+w": {Code: 'w', Mod: tea.ModCtrl},
	}
	for _, key := range keys {
		if k, ok := named[key]; ok {
			v.send(tea.KeyPressMsg(k))
			continue
		}
		for _, c := range key {
			v.send(tea.KeyPressMsg(tea.Key{Code: c, Text: string(c)}))
		}
	}
}

// screen returns the text on the screen, without styles and without spaces at the ends of
// lines.
func (v *view) screen() string {
	lines := strings.Split(ansi.Strip(v.View().Content), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	return strings.Join(lines, "\n")
}

// want checks that texts are on the screen, in this order.
func (v *view) want(texts ...string) {
	v.Helper()
	rest := v.screen()
	for _, text := range texts {
		_, after, found := strings.Cut(rest, text)
		if !found {
			v.Fatalf("the screen has no %q where it is wanted:\n%s", text, v.screen())
		}
		rest = after
	}
}

// lacks checks that a text is not on the screen.
func (v *view) lacks(text string) {
	v.Helper()
	if strings.Contains(v.screen(), text) {
		v.Fatalf("the screen has %q:\n%s", text, v.screen())
	}
}

// styled returns the line with a text, with its styles.
func (v *view) styled(text string) string {
	v.Helper()
	for line := range strings.SplitSeq(v.View().Content, "\n") {
		if strings.Contains(ansi.Strip(line), text) {
			return line
		}
	}
	v.Fatalf("no line has %q:\n%s", text, v.screen())
	return ""
}
