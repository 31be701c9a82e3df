package eve

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quicway/quicway/monitor"
)

// connection returns a connection whose ClientHello was read.
func connection() monitor.Connection {
	return monitor.Connection{
		UID: "CA482y1XJVd3d0RYI7", CommunityID: "1:j8lTjwuSeSRqsRhlw+Ek9hQS4hg=", Version: 1,
		TLS: monitor.TLS{ServerName: "api.cirrus-ci.com", JA4: "q13d0310h3_55b375c5d22e_cd85d2d88918"},
		Paths: []monitor.Path{{
			Client: netip.MustParseAddrPort("82.239.54.117:53727"), Server: netip.MustParseAddrPort("110.213.53.115:443"),
		}},
		First: time.UnixMicro(1692198386837988),
	}
}

// TestRecords checks which records are written, field by field as Suricata does.
func TestRecords(t *testing.T) {
	at := time.UnixMicro(1692198386900001)
	named, unread, midFlow := connection(), connection(), connection()
	unread.TLS, unread.Version = monitor.TLS{}, 0x51303436
	unread.Paths = []monitor.Path{{Client: netip.MustParseAddrPort("[2001:db8::1]:50000"), Server: netip.MustParseAddrPort("[2001:db8::2]:443")}}
	google := unread
	google.UserAgent = "Cronet/63"
	midFlow.TLS, midFlow.Version = monitor.TLS{}, 0
	const head = `{"timestamp":"2023-08-16T15:06:26.`
	const first = head + `900001+0000","flow_id":1689382213445337,"event_type":"quic","src_ip":"82.239.54.117","src_port":53727,"dest_ip":"110.213.53.115","dest_port":443,"proto":"UDP","ip_v":4,"community_id":"1:j8lTjwuSeSRqsRhlw+Ek9hQS4hg=","quic":{"version":"1","sni":"api.cirrus-ci.com","ja4":"q13d0310h3_55b375c5d22e_cd85d2d88918"}}` + "\n"
	const second = head + `837988+0000","flow_id":1689382213445337,"event_type":"quic","src_ip":"2001:db8::1","src_port":50000,"dest_ip":"2001:db8::2","dest_port":443,"proto":"UDP","ip_v":6,"community_id":"1:j8lTjwuSeSRqsRhlw+Ek9hQS4hg=","quic":{"version":"Q046"}}` + "\n"
	for name, test := range map[string]struct {
		write func(*Writer) error
		want  string
	}{
		"a ClientHello": {func(w *Writer) error {
			return w.Event(&monitor.Event{Kind: monitor.EventIdentified, Time: at, Connection: named})
		}, first},
		"a ServerHello": {func(w *Writer) error {
			return w.Event(&monitor.Event{Kind: monitor.EventIdentified, ServerHello: true, Time: at, Connection: named})
		}, ""},
		"another event": {func(w *Writer) error {
			return w.Event(&monitor.Event{Kind: monitor.EventClosed, Time: at, Connection: named})
		}, ""},
		"the end":                 {func(w *Writer) error { return w.Connection(&named) }, ""},
		"the end without a hello": {func(w *Writer) error { return w.Connection(&unread) }, second},
		"the end of Google QUIC":  {func(w *Writer) error { return w.Connection(&google) }, ""},
		"a message of Google QUIC": {func(w *Writer) error {
			return w.Event(&monitor.Event{Kind: monitor.EventIdentified, Time: google.First, Connection: google})
		}, strings.Replace(second, `"Q046"`, `"Q046","ua":"Cronet/63"`, 1)},
		"the end without a version":      {func(w *Writer) error { return w.Connection(&midFlow) }, ""},
		"the counters and the log's end": {func(w *Writer) error { return errors.Join(w.Stats(new(monitor.Stats)), w.Close()) }, ""},
	} {
		var out bytes.Buffer
		if err := test.write(NewWriter(&out)); err != nil {
			t.Fatal(err)
		}
		if out.String() != test.want {
			t.Errorf("%s: got\n%s\nwant\n%s", name, out.String(), test.want)
		}
	}
}

// TestVersions checks the names that Suricata has for versions.
func TestVersions(t *testing.T) {
	for v, want := range map[monitor.Version]string{
		1: "1", 0x6b3343cf: "v2", 0xff00001d: "ff00001d", 0x51303433: "Q043", 0x51303530: "51303530",
	} {
		if got := versionName(v); got != want {
			t.Errorf("%#x: got %q, want %q", uint32(v), got, want)
		}
	}
}

// TestFlowID checks that the numbers of flows are exact in JavaScript, and differ.
func TestFlowID(t *testing.T) {
	seen := map[uint64]bool{}
	for i := range byte(100) {
		id := flowID("C" + string(rune('0'+i)))
		if id >= 1<<51 || seen[id] {
			t.Errorf("got %d", id)
		}
		seen[id] = true
	}
}
