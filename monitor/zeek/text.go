package zeek

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/quicway/quicway/monitor"
)

// What stands for fields without a value, and for empty strings.
const (
	unsetField = "-"
	emptyField = "(empty)"
)

// textLine returns a connection as a line of text.
func textLine(c *monitor.Connection) string {
	var line strings.Builder
	for i := range columns {
		if i > 0 {
			line.WriteByte('\t')
		}
		line.WriteString(textOf(columns[i].value(c)))
	}
	line.WriteByte('\n')
	return line.String()
}

// textOf returns a field as text. What would be taken for an unset or an empty field has its
// first character as a number.
func textOf(value string, set bool) string {
	switch {
	case !set:
		return unsetField
	case value == "":
		return emptyField
	case value == unsetField || value == emptyField:
		return number(value[0]) + value[1:]
	}
	return escape(strings.ReplaceAll(value, `\`, `\\`), "")
}

// jsonLine returns a connection as a line of JSON.
func jsonLine(c *monitor.Connection) (string, error) {
	var line bytes.Buffer
	strings := json.NewEncoder(&line)
	strings.SetEscapeHTML(false)
	separator := byte('{')
	for i := range columns {
		value, set := columns[i].value(c)
		if !set {
			continue
		}
		fmt.Fprintf(&line, "%c%q:", separator, columns[i].name)
		separator = ','
		if kind := columns[i].kind; kind == "time" || kind == "port" {
			line.WriteString(value)
		} else if err := strings.Encode(escape(value, "\b\f\n\r\t")); err != nil {
			return "", err
		} else {
			line.Truncate(line.Len() - 1) // the end of the line
		}
	}
	line.WriteString("}\n")
	return line.String(), nil
}

// escape returns a string with its control characters as numbers, but those to keep. If it is not
// valid UTF-8 all bytes but those of ASCII become numbers.
func escape(s, keep string) string {
	valid := utf8.ValidString(s)
	var out strings.Builder
	for i := range len(s) {
		b := s[i]
		control := b < ' ' && strings.IndexByte(keep, b) < 0 || b == 0x7f
		if control || b >= utf8.RuneSelf && !valid {
			out.WriteString(number(b))
		} else {
			out.WriteByte(b)
		}
	}
	return out.String()
}

// number returns a byte as a number.
func number(b byte) string { return fmt.Sprintf(`\x%02x`, b) }
