package p2p

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// The IDs of the tests.
var (
	bobID   = mustPeerID("gopc76ixmmcqpnveeo244ccofbor7js5soz6e6tbsxj3x26jvyrq")
	carolID = mustPeerID("zwe4uyvi3z6ezdpn77mfh4x5eackwrxecnaliirq7ctcgbcgnwoq")
)

func mustPeerID(text string) PeerID {
	id, err := ParsePeerID(text)
	if err != nil {
		panic(err)
	}
	return id
}

// knownFile writes a file of known peers.
func knownFile(t *testing.T, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_peers")
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestKnownPeers checks how lines are read.
func TestKnownPeers(t *testing.T) {
	bob, carol := bobID.String(), carolID.String()
	both := KnownPeers{{"bob", bobID, ""}, {"carol", carolID, "the laptop"}}
	for _, test := range []struct {
		name, content string
		want          KnownPeers
	}{
		{"empty", "", nil},
		{"two", "bob " + bob + "\ncarol " + carol + " the laptop\n", both},
		{"comments", "# all\n\n  \t\nbob " + bob + "\n#x " + bob + "\n  # y\ncarol " + carol + " the laptop\n", both},
		{"CRLF", "bob " + bob + "\r\ncarol " + carol + " the laptop\r\n", both},
		{"BOM", "\xef\xbb\xbfbob " + bob + "\ncarol " + carol + " the laptop\n", both},
		{"space", " \tbob\t \t" + bob + " \ncarol  " + carol + "\tthe laptop \t", both},
		{"upper case", "bob " + strings.ToUpper(bob), both[:1]},
		{"several names", "bob " + bob + "\nBob " + bob, KnownPeers{{"bob", bobID, ""}, {"Bob", bobID, ""}}},
		{"other letters", "bøb@home.example " + bob + " # ü", KnownPeers{{"bøb@home.example", bobID, "# ü"}}},
		{"the longest", strings.Repeat("n", maxKnownName) + " " + bob, KnownPeers{{strings.Repeat("n", maxKnownName), bobID, ""}}},
	} {
		got, err := LoadKnownPeers(knownFile(t, test.content))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %v, %v, want %v", test.name, got, err, test.want)
		}
	}
}

// TestHostileKnownPeers checks that errors name the file and the line, and say what is wrong.
func TestHostileKnownPeers(t *testing.T) {
	bob := "bob " + bobID.String() + "\n"
	many := new(strings.Builder)
	for i := range maxKnown + 1 {
		fmt.Fprintf(many, "n%d %v\n", i, bobID)
	}
	for _, test := range []struct{ name, content, want string }{
		{"no ID", bob + "carol\n", ":2: there is no peer ID"},
		{"a bad ID", bob + "\ncarol " + bobID.String()[1:] + "\n", ":3: malformed peer ID"},
		{"a zero ID", "carol " + PeerID{}.String(), ":1: the peer ID is zero"},
		{"no name", bobID.String() + "\n", ":1: the name is a peer ID"},
		{"a long name", strings.Repeat("n", maxKnownName+1) + " " + bobID.String(), ":1: the name has 65 bytes"},
		{"a name twice", bob + "# x\nbob " + carolID.String(), ":3: the name bob is also in line 1"},
		{"a long line", bob + "carol " + carolID.String() + strings.Repeat(" x", maxKnownLine), ":2: the line has more than"},
		{"a long comment line", "#" + strings.Repeat("x", maxKnownLine), ":1: the line has more than"},
		{"binary", bob + "\x00\x01\x02", ":2: the line has a character"},
		{"not UTF-8", "b\xffb " + bobID.String(), ":1: the line is not UTF-8"},
		{"UTF-16", "\xff\xfeb\x00o\x00b\x00", ":1: the line is not UTF-8"},
		{"an escape sequence", "bob " + bobID.String() + " \x1b[2J", ":1: the line has a character"},
		{"old Mac", "bob " + bobID.String() + "\rcarol " + carolID.String(), ":1: the line has a character"},
		{"many", many.String(), ":10001: more than 10000 peers"},
		{"huge", strings.Repeat("#\n", maxKnownFile/2+1), "too large"},
	} {
		file := knownFile(t, test.content)
		_, err := LoadKnownPeers(file)
		if !errors.Is(err, ErrMalformedKnownPeers) || !strings.Contains(err.Error(), file) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
		if err := AddKnownPeer(file, KnownPeer{Name: "dave", ID: carolID}); !errors.Is(err, ErrMalformedKnownPeers) {
			t.Errorf("%s: a peer was added: %v", test.name, err)
		}
	}
	if _, err := LoadKnownPeers(t.TempDir()); !errors.Is(err, ErrMalformedKnownPeers) {
		t.Errorf("a folder: got %v", err)
	}
	file := knownFile(t, bob)
	if err := os.Chmod(file, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadKnownPeers(file); runtime.GOOS != "windows" && (!errors.Is(err, ErrMalformedKnownPeers) || !strings.Contains(err.Error(), "chmod o-w")) {
		t.Errorf("a file that everybody may change: got %v", err)
	}
	if _, err := LoadKnownPeers(file + ".none"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrMalformedKnownPeers) {
		t.Errorf("a missing file: got %v", err)
	}
}

// TestFindKnownPeer checks that a name and an ID both lead to a peer.
func TestFindKnownPeer(t *testing.T) {
	known := KnownPeers{{"bob", bobID, ""}, {"bobby", bobID, ""}}
	for text, want := range map[string]PeerID{"bob": bobID, "bobby": bobID, carolID.String(): carolID} {
		if got, err := known.Find(text); err != nil || got != want {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "Bob", "carol", "bob ", bobID.String() + "x"} {
		if got, err := known.Find(text); !errors.Is(err, ErrUnknownPeer) || !got.IsZero() {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	if known.NameOf(bobID) != "bob" || known.NameOf(carolID) != "" {
		t.Errorf("got %q and %q", known.NameOf(bobID), known.NameOf(carolID))
	}
}

// TestAddKnownPeer checks what is added, and that what was in the file stays.
func TestAddKnownPeer(t *testing.T) {
	file := filepath.Join(t.TempDir(), "known_peers")
	for _, p := range []KnownPeer{{"bob", bobID, ""}, {"carol", carolID, " the\tlaptop "}, {"bob", bobID, "again"}} {
		if err := AddKnownPeer(file, p); err != nil {
			t.Fatal(err)
		}
	}
	want := fmt.Sprintf("bob %v\ncarol %v the\tlaptop\n", bobID, carolID)
	if b, err := os.ReadFile(file); err != nil || string(b) != want {
		t.Errorf("got %q, %v", b, err)
	}
	if err := AddKnownPeer(file, KnownPeer{Name: "bob", ID: carolID}); !errors.Is(err, ErrKnownPeer) || !strings.Contains(err.Error(), bobID.String()) {
		t.Errorf("another peer: got %v", err)
	}
	for _, p := range []KnownPeer{
		{"", bobID, ""}, {"#x", bobID, ""}, {"a b", bobID, ""}, {" a", bobID, ""}, {"a\n", bobID, ""}, {carolID.String(), bobID, ""},
		{strings.Repeat("n", maxKnownName+1), bobID, ""}, {"x", PeerID{}, ""}, {"x", bobID, "two\nlines"},
		{"x", bobID, strings.Repeat("c", maxKnownLine)}, {"\xff", bobID, ""},
	} {
		if err := AddKnownPeer(file, p); !errors.Is(err, ErrMalformedKnownPeers) {
			t.Errorf("%q: got %v", p, err)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != want {
		t.Errorf("then %q, %v", b, err)
	}
	open := knownFile(t, "# mine\r\nbob "+bobID.String())
	if err := AddKnownPeer(open, KnownPeer{Name: "carol", ID: carolID}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(open); err != nil || string(b) != fmt.Sprintf("# mine\r\nbob %v\ncarol %v\n", bobID, carolID) {
		t.Errorf("without an end of line: got %q, %v", b, err)
	}
}

// FuzzKnownPeers checks that every peer that is read can be written, and is read again.
func FuzzKnownPeers(f *testing.F) {
	f.Add([]byte("# x\r\nbob " + bobID.String() + " the laptop\ncarol\t" + strings.ToUpper(carolID.String())))
	f.Fuzz(func(t *testing.T, text []byte) {
		known, err := parseKnownPeers("f", text)
		if err != nil {
			return
		}
		var again strings.Builder
		for _, p := range known {
			line, err := p.line()
			if err != nil {
				t.Fatalf("%q: %v", p, err)
			}
			again.WriteString(line)
		}
		if got, err := parseKnownPeers("f", []byte(again.String())); err != nil || !reflect.DeepEqual(got, known) {
			t.Fatalf("got %q, %v, want %q", got, err, known)
		}
	})
}
