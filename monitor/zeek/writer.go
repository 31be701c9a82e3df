package zeek

import (
	"io"
	"time"

	"github.com/quicway/quicway/monitor"
)

// Writer writes a quic.log. It implements [monitor.Writer]. Events and counters are not part of
// the log.
type Writer struct {
	out    io.Writer
	json   bool
	now    func() time.Time
	opened bool // the header was written
}

var _ monitor.Writer = (*Writer)(nil)

// NewWriter returns a writer of a log as text: a header, a line for each connection with a tab
// between fields, and a line with the time of Close.
func NewWriter(out io.Writer) *Writer { return &Writer{out: out, now: time.Now} }

// NewJSONWriter returns a writer of a log as JSON lines, as with Zeek's LogAscii::use_json. Fields
// that are unset are left out.
func NewJSONWriter(out io.Writer) *Writer { return &Writer{out: out, now: time.Now, json: true} }

// Connection implements [monitor.Writer].
func (w *Writer) Connection(c *monitor.Connection) error {
	if w.json {
		line, err := jsonLine(c)
		if err != nil {
			return err
		}
		return w.write(line)
	}
	if err := w.open(); err != nil {
		return err
	}
	return w.write(textLine(c))
}

// Event implements [monitor.Writer]. It writes nothing.
func (w *Writer) Event(*monitor.Event) error { return nil }

// Stats implements [monitor.Writer]. It writes nothing.
func (w *Writer) Stats(*monitor.Stats) error { return nil }

// Close implements [monitor.Writer]. A text without connections has only a header and an end.
func (w *Writer) Close() error {
	if w.json {
		return nil
	}
	if err := w.open(); err != nil {
		return err
	}
	return w.write("#close\t" + w.time() + "\n")
}

// open writes the header of a text unless it was written.
func (w *Writer) open() error {
	if w.opened {
		return nil
	}
	w.opened = true
	names, types := "#fields", "#types"
	for i := range columns {
		names += "\t" + columns[i].name
		types += "\t" + columns[i].kind
	}
	return w.write("#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tquic\n" +
		"#open\t" + w.time() + "\n" + names + "\n" + types + "\n")
}

// time returns the present time as in Zeek's headers.
func (w *Writer) time() string { return w.now().Format("2006-01-02-15-04-05") }

func (w *Writer) write(s string) error {
	_, err := io.WriteString(w.out, s)
	return err
}
