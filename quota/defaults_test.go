package quota

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
)

// TestDocumentedDefaults checks that docs/quota.md has the defaults of all fields.
func TestDocumentedDefaults(t *testing.T) {
	text, err := os.ReadFile("../docs/quota.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{limitsTable(), fieldsTable(t)} {
		if !strings.Contains(string(text), table) {
			t.Errorf("docs/quota.md does not have this table:\n%s", table)
		}
	}
}

// limitsTable is a table of the default limits of a source, a site, and all sources.
func limitsTable() string {
	conf := (*Config)(nil).withDefaults()
	var out strings.Builder
	out.WriteString("| limit | `Source` | `Site` | `Total` |\n|---|---|---|---|\n")
	for field := range reflect.TypeFor[Limits]().Fields() {
		if strings.HasSuffix(field.Name, "Burst") {
			continue
		}
		fmt.Fprintf(&out, "| `%s` |", field.Name)
		for _, l := range []Limits{conf.Source, conf.Site, conf.Total} {
			fmt.Fprintf(&out, " %s |", limitText(reflect.ValueOf(l), field.Name))
		}
		out.WriteString("\n")
	}
	return out.String()
}

// limitText is a limit in the words of the document.
func limitText(limits reflect.Value, name string) string {
	kind, isRate := strings.CutSuffix(name, "Rate")
	switch v := limits.FieldByName(name); {
	case isRate && v.Float() < 0, !isRate && v.Int() < 0:
		return "none"
	case !isRate:
		return spaced(v.Int())
	default:
		r := newRate(v.Float(), int(limits.FieldByName(kind+"Burst").Int()))
		return fmt.Sprintf("%s/s, burst %s", spaced(int64(v.Float())), spaced(r.depth/r.interval))
	}
}

// fieldsTable is a table of the other fields.
func fieldsTable(t *testing.T) string {
	conf := (*Config)(nil).withDefaults()
	values := map[string]string{
		"ConnectionRequestRate": "none", "ConnectionRequestBurst": "the requests of one second",
		"Excess":           "`" + conf.Excess.String() + "`",
		"HandshakeTimeout": fmt.Sprintf("%v", conf.HandshakeTimeout),
		"ErrorCode":        fmt.Sprintf("%#x, H3_EXCESSIVE_LOAD", uint64(conf.ErrorCode)),
		"IPv4SiteBits":     "no sites",
		"RetrySource":      fmt.Sprintf("%d: half of `Source.Connections`", compile(conf.Source, conf.RetrySource).retryFrom),
		"RetryHalfOpen":    fmt.Sprintf("%d: half of `Total.HalfOpen`", conf.RetryHalfOpen),
	}
	if conf.ConnectionRequestRate > 0 || conf.IPv4SiteBits > 0 {
		t.Error("this test writes defaults that the code does not have")
	}
	var out strings.Builder
	out.WriteString("| field | default |\n|---|---|\n")
	for field, value := range reflect.ValueOf(conf).Elem().Fields() {
		text := values[field.Name]
		switch value.Kind() {
		case reflect.Struct, reflect.Func, reflect.Pointer, reflect.Slice, reflect.Bool:
			continue
		case reflect.Int:
			if text == "" {
				text = spaced(value.Int())
			}
		}
		fmt.Fprintf(&out, "| `%s` | %s |\n", field.Name, text)
	}
	fmt.Fprintf(&out, "| `RouteLimits.MaxSources` | %s |\n", spaced(defaultRouteSources))
	return out.String()
}

// spaced writes a number with spaces between thousands, from 10 000 on.
func spaced(n int64) string {
	text := fmt.Sprint(n)
	if len(text) < 5 {
		return text
	}
	var out strings.Builder
	for i, digit := range text {
		if i > 0 && (len(text)-i)%3 == 0 {
			out.WriteByte(' ')
		}
		out.WriteRune(digit)
	}
	return out.String()
}
