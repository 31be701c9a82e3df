package control

import (
	"encoding/json"
	"errors"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/quicway/quicway/cid"
)

func idOf(n int) cid.ID {
	id, err := cid.IDFrom(make([]byte, n))
	if err != nil {
		panic(err)
	}
	return id
}

// TestBodies checks that messages are encoded as the protocol says, and decoded again.
func TestBodies(t *testing.T) {
	key := cid.Key{1, 2, 3}
	for _, test := range []struct {
		body any
		json string
	}{
		{&Register{Role: Accepter, Key: key, Next: 5, InitialID: idOf(8), TTL: 60},
			`{"role":"accepter","key":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","next":5,"initial_dcid":"0000000000000000","ttl":60}`},
		{&Register{Key: key}, `{"role":"dialer","key":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`},
		{&Registered{Observed: netip.MustParseAddrPort("192.0.2.1:5"), ObservedSeq: 2, TTL: 60, High: 16, Join: "j", Resume: "r"},
			`{"observed":"192.0.2.1:5","sight":2,"ttl":60,"low":0,"high":16,"join":"j","resume":"r"}`},
		{&Registered{Observed: netip.MustParseAddrPort("192.0.2.1:5"), Resume: "r", Instance: "i"},
			`{"observed":"192.0.2.1:5","sight":0,"ttl":0,"low":0,"high":0,"resume":"r","instance":"i"}`},
		{&Event{Type: EventGone, Session: SessionID{1}}, `{"type":"gone","session":"AQAAAAAAAAAAAAAAAAAAAA"}`},
		{&Event{Type: EventObserved, Observed: netip.MustParseAddrPort("[2001:db8::1]:5"), ObservedSeq: 1}, `{"type":"observed","observed":"[2001:db8::1]:5","sight":1}`},
		{&Event{Type: EventObserved, Observed: netip.MustParseAddrPort("192.0.2.1:5"), ObservedSeq: 1, Instance: "i"},
			`{"type":"observed","observed":"192.0.2.1:5","sight":1,"instance":"i"}`},
		{&Register{Key: key, Offer: &LeftOffer{Name: "bob", Text: "quicway1.x"}},
			`{"role":"dialer","key":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","offer":{"name":"bob","text":"quicway1.x"}}`},
		{&Registered{Observed: netip.MustParseAddrPort("192.0.2.1:5"), Resume: "r", Offered: true, Problem: &Problem{Code: CodeLimit, Message: "no"}, Held: true},
			`{"observed":"192.0.2.1:5","sight":0,"ttl":0,"low":0,"high":0,"resume":"r","offered":true,"offer_problem":{"code":"limit","message":"no"},"held":true}`},
		{&Problem{Code: CodeLimit, Message: "no"}, `{"code":"limit","message":"no"}`},
		{&Problem{Code: CodeElsewhere, Message: "no", Relay: Member{Addr: "b.example:1", Zone: "z"}},
			`{"code":"elsewhere","message":"no","relay":{"addr":"b.example:1","zone":"z"}}`},
		{&Event{Type: EventShutdown, Relays: []Member{{Addr: "b.example:1", Pin: "p", Draining: true}}},
			`{"type":"shutdown","relays":[{"addr":"b.example:1","pin":"p","draining":true}]}`},
	} {
		got, err := json.Marshal(test.body)
		if err != nil || string(got) != test.json {
			t.Errorf("%T: %s, %v\nwant %s", test.body, got, err, test.json)
		}
		back := reflect.New(reflect.TypeOf(test.body).Elem()).Interface()
		if err := Decode(strings.NewReader(test.json), back); err != nil || !reflect.DeepEqual(back, test.body) {
			t.Errorf("%s: read %+v, %v", test.json, back, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, body := range map[string]string{
		"nothing":     "",
		"no JSON":     "hello",
		"two":         `{"role":"dialer"}{"role":"dialer"}`,
		"cut":         `{"role":"dialer"`,
		"another":     `[]`,
		"role":        `{"role":"relay"}`,
		"key":         `{"key":"AQID"}`,
		"negative":    `{"next":-1}`,
		"endless ID":  `{"initial_dcid":"` + strings.Repeat("00", 21) + `"}`,
		"endless":     `{"role":"dialer"` + strings.Repeat(" ", MaxBody) + `}`,
		"endless TTL": `{"ttl":99999999999}`,
	} {
		if err := Decode(strings.NewReader(body), new(Register)); !errors.Is(err, ErrBody) {
			t.Errorf("%s: %v, want %v", name, err, ErrBody)
		}
	}
	broken := errors.New("broken")
	if err := Decode(io.MultiReader(strings.NewReader("{"), failing{broken}), new(Register)); !errors.Is(err, broken) {
		t.Errorf("reader that fails: %v", err)
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestRegisterValidate(t *testing.T) {
	key := cid.Key{1}
	for _, test := range []struct {
		name string
		req  Register
		ok   bool
	}{
		{"dialer", Register{Key: key}, true},
		{"accepter", Register{Role: Accepter, Key: key, InitialID: idOf(8)}, true},
		{"longest ID", Register{Role: Accepter, Key: key, InitialID: idOf(20)}, true},
		{"without key", Register{}, false},
		{"dialer with ID", Register{Key: key, InitialID: idOf(8)}, false},
		{"short ID", Register{Role: Accepter, Key: key, InitialID: idOf(7)}, false},
		{"offer", Register{Key: key, Offer: &LeftOffer{Name: "bob", Text: "x"}}, true},
		{"empty offer", Register{Key: key, Offer: &LeftOffer{Name: "bob"}}, false},
		{"accepter with offer", Register{Role: Accepter, Key: key, Offer: &LeftOffer{Name: "bob", Text: "x"}}, false},
	} {
		if err := test.req.Validate(); (err == nil) != test.ok || err != nil && !errors.Is(err, ErrBody) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// TestJoinToken checks that a dialer's own join token differs for each key and session,
// and is not taken for a token of a relay.
func TestJoinToken(t *testing.T) {
	key, session := cid.NewKey(), NewSessionID()
	token := JoinToken(key, session)
	if token != JoinToken(key, session) || token == JoinToken(cid.NewKey(), session) || token == JoinToken(key, NewSessionID()) {
		t.Error("the token does not depend on key and session alone")
	}
	if !IsJoinToken(token) || IsJoinToken("bGVn") {
		t.Error("the token is not recognized")
	}
}

func TestSessionIDText(t *testing.T) {
	want := NewSessionID()
	var got SessionID
	if err := got.UnmarshalText([]byte(want.String())); err != nil || got != want {
		t.Errorf("%v became %v, %v", want, got, err)
	}
	for _, bad := range []string{"", "AQ", want.String() + "A", want.String()[:21] + "*", want.String()[:21] + "\n"} {
		if err := got.UnmarshalText([]byte(bad)); !errors.Is(err, ErrBody) {
			t.Errorf("%q: %v, want %v", bad, err, ErrBody)
		}
	}
}

// FuzzDecode checks that a decoded message is the same after it is encoded and decoded
// again.
func FuzzDecode(f *testing.F) {
	f.Add(`{"role":"accepter","key":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","next":5,"initial_dcid":"0000000000000000","ttl":60}`)
	f.Add(`{"observed":"192.0.2.1:5","ttl":60,"low":0,"high":16,"join":"j","resume":"r"}`)
	f.Add(`{"type":"joined","session":"AQAAAAAAAAAAAAAAAAAAAA"}`)
	f.Add(`{"code":"limit","message":"no"}`)
	f.Fuzz(func(t *testing.T, body string) {
		for _, v := range []any{new(Register), new(Registered), new(Event), new(Problem)} {
			if Decode(strings.NewReader(body), v) != nil {
				continue
			}
			if r, ok := v.(*Register); ok && r.Validate() == nil && r.Key == (cid.Key{}) {
				t.Error("valid without key")
			}
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatalf("%T of %q: %v", v, body, err)
			}
			if len(text) > MaxBody {
				continue // JSON may escape characters that need no escape
			}
			again := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := Decode(strings.NewReader(string(text)), again); err != nil || !reflect.DeepEqual(again, v) {
				t.Errorf("%T of %q: written as %s, read as %+v, %v", v, body, text, again, err)
			}
		}
	})
}
