package zeek

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/monitor"
)

// chromium returns the connection of Zeek's documentation, as far as Zeek writes it.
func chromium() *monitor.Connection {
	return &monitor.Connection{
		UID: "CA482y1XJVd3d0RYI7", Version: 1, OriginalID: "95412c47018cdfe8",
		ClientID: new(monitor.ID),
		TLS:      monitor.TLS{ServerName: "api.cirrus-ci.com", ALPN: []string{"h3", "h2"}},
		Paths: []monitor.Path{{
			Client: netip.MustParseAddrPort("82.239.54.117:53727"), Server: netip.MustParseAddrPort("110.213.53.115:443"),
		}},
		History: "ISisH",
		First:   time.UnixMicro(1692198386837988),
	}
}

// TestText checks a log in text against the lines that Zeek writes.
func TestText(t *testing.T) {
	var out bytes.Buffer
	w := NewWriter(&out)
	w.now = func() time.Time { return time.Date(2023, 8, 16, 15, 6, 27, 0, time.UTC) }
	unknown := &monitor.Connection{
		UID: "CHhAvVGS1DHFjwGM9", Version: 0x10010000, OriginalID: "00", ClientID: new(monitor.ID), History: "U",
		Paths: []monitor.Path{{Client: netip.MustParseAddrPort("1.2.3.4:45492"), Server: netip.MustParseAddrPort("[2001:db8::7]:443")}},
		First: time.UnixMicro(1000),
	}
	for _, c := range []*monitor.Connection{chromium(), unknown, {UID: "C1"}} {
		if err := errors.Join(w.Event(&monitor.Event{Connection: *c}), w.Connection(c)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Stats(new(monitor.Stats)), w.Close()); err != nil {
		t.Fatal(err)
	}
	const want = `#separator \x09
#set_separator	,
#empty_field	(empty)
#unset_field	-
#path	quic
#open	2023-08-16-15-06-27
#fields	ts	uid	id.orig_h	id.orig_p	id.resp_h	id.resp_p	version	client_initial_dcid	client_scid	server_scid	server_name	client_protocol	history
#types	time	string	addr	port	addr	port	string	string	string	string	string	string	string
1692198386.837988	CA482y1XJVd3d0RYI7	82.239.54.117	53727	110.213.53.115	443	1	95412c47018cdfe8	(empty)	-	api.cirrus-ci.com	h3	ISisH
0.001000	CHhAvVGS1DHFjwGM9	1.2.3.4	45492	2001:db8::7	443	unknown-10010000	00	(empty)	-	-	-	U
-	C1	-	-	-	-	-	-	-	-	-	-	(empty)
#close	2023-08-16-15-06-27
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestJSON checks a log in JSON against the line in Zeek's documentation.
func TestJSON(t *testing.T) {
	var out bytes.Buffer
	w := NewJSONWriter(&out)
	if err := errors.Join(w.Connection(chromium()), w.Close()); err != nil {
		t.Fatal(err)
	}
	const want = `{"ts":1692198386.837988,"uid":"CA482y1XJVd3d0RYI7","id.orig_h":"82.239.54.117","id.orig_p":53727,"id.resp_h":"110.213.53.115","id.resp_p":443,"version":"1","client_initial_dcid":"95412c47018cdfe8","client_scid":"","server_name":"api.cirrus-ci.com","client_protocol":"h3","history":"ISisH"}` + "\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// TestEscapes checks names that a client has chosen to break the log.
func TestEscapes(t *testing.T) {
	for name, want := range map[string]struct{ text, json string }{
		"a\tb\nc":          {`a\x09b\x0ac`, "a\tb\nc"},
		`a\x09`:            {`a\\x09`, `a\x09`},
		"-":                {`\x2d`, "-"},
		"(empty)":          {`\x28empty)`, "(empty)"},
		"bücher.example":   {"bücher.example", "bücher.example"},
		"b\xfccher\x00\"<": {`b\xfccher\x00"<`, `b\xfccher\x00"<`},
		"ü\xff":            {`\xc3\xbc\xff`, `\xc3\xbc\xff`},
		"\x7f":             {`\x7f`, `\x7f`},
		"#":                {"#", "#"},
	} {
		c := chromium()
		c.ServerName = name
		var text, lines bytes.Buffer
		if err := errors.Join(NewWriter(&text).Connection(c), NewJSONWriter(&lines).Connection(c)); err != nil {
			t.Fatal(err)
		}
		rows := strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
		if got := strings.Split(rows[len(rows)-1], "\t"); len(rows) != 9 || len(got) != len(columns) || got[10] != want.text {
			t.Errorf("%q: got %q, want %q", name, got, want.text)
		}
		var got map[string]any
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil || got["server_name"] != want.json {
			t.Errorf("%q: got %q (%v), want %q", name, got["server_name"], err, want.json)
		}
	}
}

// TestVersions checks the names that Zeek has for versions.
func TestVersions(t *testing.T) {
	for v, want := range map[monitor.Version]string{
		0: "", 1: "1", 0x6b3343cf: "quicv2", 0xff000016: "draft-22", 0xff00001d: "draft-29", 0xff000022: "draft-34",
		0xfaceb002: "mvfst (faceb002)", 0x51303436: "unknown-51303436", 0xff000015: "unknown-ff000015",
	} {
		if got := versionName(v); got != want {
			t.Errorf("%#x: got %q, want %q", uint32(v), got, want)
		}
	}
}

// TestEmptyLog checks that a log without connections can be read.
func TestEmptyLog(t *testing.T) {
	var text, lines bytes.Buffer
	if err := errors.Join(NewWriter(&text).Close(), NewJSONWriter(&lines).Close()); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(text.String(), "\n#"); got != 8 || lines.Len() > 0 {
		t.Errorf("got %q and %q", text.String(), lines.String())
	}
}
