package terminal

import (
	"cmp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxFilter is the limit of bytes of the filter.
const maxFilter = 100

// list is what the list shows, and in which order.
type list struct {
	rows     []*row // those that match the filter, in order
	all      []*row
	open     int // rows in all that have not ended
	widths   widths
	sorted   int  // the column
	reversed bool // against the column's own direction
	filter   string
	editing  bool // the filter
	at, top  int  // positions in rows: of the selection, and of the first visible row
	selected uint64
	pinned   bool // the selection stays with a connection, not at the top
}

func newList() list { return list{sorted: ageColumn} }

// arrange takes new rows.
func (l *list) arrange(all []*row) {
	l.all, l.open, l.widths = all, 0, widths{}
	for _, r := range all {
		l.widths.add(r)
		if !r.isOver() {
			l.open++
		}
	}
	l.match()
}

// match sets the rows that match the filter, and sorts them.
func (l *list) match() {
	words := strings.Fields(strings.ToLower(l.filter))
	l.rows = make([]*row, 0, len(l.all))
	for _, r := range l.all {
		if r.matches(words) {
			l.rows = append(l.rows, r)
		}
	}
	l.sort()
}

// sort sorts the rows. The selection stays with its connection.
func (l *list) sort() {
	c := &columns[l.sorted]
	sign := 1
	if c.falling != l.reversed {
		sign = -1
	}
	slices.SortFunc(l.rows, func(a, b *row) int {
		return cmp.Or(sign*c.compare(a, b), -cmp.Compare(a.number, b.number))
	})
	if l.pinned {
		if i := slices.IndexFunc(l.rows, func(r *row) bool { return r.number == l.selected }); i >= 0 {
			l.at = i
		}
	}
	l.choose(l.at)
}

// choose selects a position.
func (l *list) choose(at int) {
	l.at = max(min(at, len(l.rows)-1), 0)
	l.selected = 0
	if l.at < len(l.rows) {
		l.selected = l.rows[l.at].number
	}
}

// selectedRow returns the selected row, or nil if there is none.
func (l *list) selectedRow() *row {
	if l.at >= len(l.rows) {
		return nil
	}
	return l.rows[l.at]
}

// move moves the selection by a key. At the top it stays there when rows come and go.
func (l *list) move(key string, page int) {
	l.choose(step(key, l.at, page, len(l.rows)))
	l.pinned = l.at > 0
}

// visible returns the rows on a page, with the selection among them.
func (l *list) visible(page int) []*row {
	l.top = min(max(l.top, l.at-page+1), l.at)
	l.top = max(min(l.top, len(l.rows)-page), 0)
	return l.rows[l.top:min(l.top+max(page, 0), len(l.rows))]
}

// sortBy sorts by a column further to the right, or to the left.
func (l *list) sortBy(further int) {
	l.sorted = (l.sorted + further + len(columns)) % len(columns)
	l.reversed = false
	l.sort()
}

// reverse reverses the order.
func (l *list) reverse() {
	l.reversed = !l.reversed
	l.sort()
}

// setFilter changes the filter.
func (l *list) setFilter(filter string) {
	if filter != l.filter {
		l.filter = filter
		l.match()
	}
}

// edit handles a key while the filter is typed.
func (l *list) edit(key, text string) {
	switch key {
	case "enter":
		l.editing = false
	case "esc", "alt+esc":
		l.editing = false
		l.setFilter("")
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(l.filter)
		l.setFilter(l.filter[:len(l.filter)-size])
	case "ctrl+u":
		l.setFilter("")
	case "ctrl+w":
		l.setFilter(l.filter[:strings.LastIndexByte(strings.TrimRight(l.filter, " "), ' ')+1])
	case "up", "down", "pgup", "pgdown":
		l.move(key, 1)
	default:
		l.typed(text)
	}
}

// typed adds what was typed or pasted to the filter. What is no printable ASCII is written as
// it is in names, so that everything is found as it is shown.
func (l *list) typed(text string) {
	var out strings.Builder
	for _, c := range text {
		switch {
		case unicode.IsSpace(c):
			out.WriteByte(' ')
		case c < utf8.RuneSelf && unicode.IsPrint(c):
			out.WriteRune(c)
		default:
			out.WriteString(clean(string(c)))
		}
	}
	if len(l.filter)+out.Len() <= maxFilter {
		l.setFilter(l.filter + out.String())
	}
}
