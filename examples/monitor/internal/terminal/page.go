package terminal

import (
	"strconv"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// labelWidth is the width of the labels of fields.
const labelWidth = 22

// page collects lines of a width.
type page struct {
	width int
	lines []string
}

func (p *page) line(s string) { p.lines = append(p.lines, s) }

func (p *page) heading(s string) { p.lines = append(p.lines, "", heading.Styled(s)) }

// field adds a label and a text, which may take several lines. It adds nothing for an empty
// text.
func (p *page) field(label, text string) {
	if text == "" {
		return
	}
	p.wrapped("  "+fit(label, labelWidth-2), text, labelWidth)
}

// number adds a field unless its value is 0.
func (p *page) number(label string, n int) { p.field(label, unless(n == 0, strconv.Itoa(n))) }

// item adds a line, and more a line below it that is further to the right.
func (p *page) item(text string) { p.wrapped("  ", text, 4) }

func (p *page) more(text string) { p.wrapped("      ", text, 8) }

// wrapped adds a text after a prefix. Its further lines are indented.
func (p *page) wrapped(prefix, text string, indent int) {
	room := max(p.width-max(indent, ansi.StringWidth(prefix)), 10)
	for line := range strings.SplitSeq(ansi.Wrap(text, room, ","), "\n") {
		p.line(prefix + line)
		prefix = strings.Repeat(" ", indent)
	}
}
