package terminal

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"github.com/quicway/quicway/monitor"
)

// highlight is how long a row is highlighted after a change of path.
const highlight = 10 * time.Second

// frame says how many lines of the screen the list leaves to other things.
type frame struct{ title, moves, help int }

// frame returns what there is room for.
func (m *model) frame() frame {
	switch h := m.height; {
	case h >= fullHeight:
		return frame{2, 3, 1}
	case h >= 12:
		return frame{2, 1, 1}
	case h >= 6:
		return frame{1, 0, 1}
	}
	return frame{}
}

// rowsVisible returns the number of rows that fit.
func (m *model) rowsVisible() int {
	f := m.frame()
	return max(m.height-f.title-1-f.moves-f.help, 1)
}

// listLines returns the lines of the list.
func (m *model) listLines() []string {
	f, rows := m.frame(), m.rowsVisible()
	out := []string{m.titleLine(), m.orderLine()}[:f.title]
	out = append(out, m.tableLines(rows)...)
	out = append(out, m.movesLines(f.moves)...)
	if f.help > 0 {
		out = append(out, m.helpLine())
	}
	return out
}

// titleLine returns the line with the counters.
func (m *model) titleLine() string {
	s := m.shown
	text := count(m.list.open, "connection")
	if ended := len(m.list.all) - m.list.open; ended > 0 {
		text += fmt.Sprintf(", %s ended", amount(float64(ended)))
	}
	text = fmt.Sprintf("%s │ %s │ %s datagrams/s, %s QUIC", strong.Styled(text), count(s.moved, "path change"), amount(s.datagrams), amount(s.quic))
	if s.lost > 0 {
		text += " │ " + warning.Styled(count(s.lost, "packet")+" lost")
	}
	if s.eventsLost > 0 {
		text += " │ " + warning.Styled(count(s.eventsLost, "event")+" lost")
	}
	return m.state() + text
}

// state returns a word that the view does not show what is now, or nothing.
func (m *model) state() string {
	switch {
	case m.ended:
		return selection.Styled(" THE SOURCE HAS ENDED ") + " "
	case m.paused:
		return selection.Styled(" PAUSED "+m.shown.at.Format(time.TimeOnly)+" ") + " "
	}
	return ""
}

// orderLine returns the line with the order and the filter.
func (m *model) orderLine() string {
	l := &m.list
	text := "sorted by " + columns[l.sorted].title + l.arrow()
	if l.filter != "" || l.editing {
		text += fmt.Sprintf(" │ filter (%d of %d): %s", len(l.rows), len(l.all), strong.Styled(l.filter))
	}
	if l.editing {
		text += selection.Styled(" ")
	}
	return text
}

// arrow returns the sign of the order.
func (l *list) arrow() string {
	if columns[l.sorted].falling != l.reversed {
		return "▼"
	}
	return "▲"
}

// tableLines returns the headline and the visible rows, and empty lines for the rest of a
// page.
func (m *model) tableLines(page int) []string {
	l := &m.list
	w := l.widths.lay(m.width, l.sorted)
	out := []string{l.headline(&w)}
	for _, r := range l.visible(page) {
		out = append(out, m.rowLine(r, &w))
	}
	if len(l.rows) == 0 {
		text := "No QUIC connections yet."
		if len(l.all) > 0 {
			text = "No connection matches the filter."
		}
		out = append(out, strings.Repeat(" ", margin)+text)
	}
	for len(out) < page+1 {
		out = append(out, "")
	}
	return out
}

// headline returns the titles of the columns.
func (l *list) headline(w *widths) string {
	var out strings.Builder
	for i := range columns {
		if w[i] == 0 {
			continue
		}
		title := columns[i].title
		if i == l.sorted {
			title += l.arrow()
		}
		align := fit
		if columns[i].text != nil && i != trendColumn {
			align = alignRight
		}
		out.WriteString(align(title, w[i]) + strings.Repeat(" ", gap))
	}
	return strings.Repeat(" ", margin) + heading.Styled(strings.TrimSuffix(out.String(), " "))
}

// rowLine returns the line of a row.
func (m *model) rowLine(r *row, w *widths) string {
	sign, style := " ", plain
	switch now := m.shown.at; {
	case r.isOver():
		sign, style = "×", faint
	case !r.moved.IsZero() && now.Sub(r.moved) < highlight:
		sign, style = "●", movedRow
	case r.source.state == monitor.StateSilent:
		style = faint
	}
	if r.number == m.list.selected {
		style = selection
	}
	cells := make([]string, 0, len(columns))
	for i := range columns {
		if w[i] > 0 {
			cells = append(cells, columns[i].cell(r, m.shown.at, w[i]))
		}
	}
	return style.Styled(fit(sign, margin) + strings.Join(cells, strings.Repeat(" ", gap)))
}

// movesLines returns the lines of the latest changes of path, the latest last.
func (m *model) movesLines(n int) []string {
	moves := m.shown.moves
	moves = moves[max(len(moves)-n, 0):]
	out := make([]string, 0, n)
	for i := range moves {
		v := &moves[i]
		line := fmt.Sprintf("%s %v %s → %s (%v) %s", v.at.Local().Format(time.TimeOnly), v.kind, address(v.from), address(v.to), v.confidence, v.name)
		if m.shown.at.Sub(v.at) < highlight {
			line = movedRow.Styled(line)
		}
		out = append(out, line)
	}
	if len(out) == 0 && n > 0 {
		out = append(out, faint.Styled("No connection has changed its path yet."))
	}
	for len(out) < n {
		out = append([]string{""}, out...)
	}
	return out
}

// helpLine returns the line with the keys, or with what was logged.
func (m *model) helpLine() string {
	if m.shown.logged != "" && !m.list.editing {
		return warning.Styled(ansi.Truncate(m.shown.logged, max(m.width, 0), "…"))
	}
	keys := "↑↓ select  ⏎ details  ←→ sort  r reverse  / filter  p pause  ? help  q quit"
	if m.list.editing {
		keys = "type names, addresses or states  ⏎ done  esc no filter"
	}
	return faint.Styled(keys)
}
