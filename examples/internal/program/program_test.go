package program

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/qlog"
)

var sample = Program{Name: "sample", Does: "shows the frame", Uses: []Use{{"FILE", "read a file"}, {"-", "read nothing"}}}

// TestExit checks what a program prints, and its exit code, for what run returns.
func TestExit(t *testing.T) {
	for _, test := range []struct {
		name, args  string
		err         error
		interrupted bool
		code        int
		stdout      string // a part of it
		stderr      string // all of it
	}{
		{"done", "-n 1 a b", nil, false, 0, "", ""},
		{"failed", "", errors.New("relay: listen: no"), false, 1, "", "sample: listen: no\n"},
		{"several errors", "", errors.Join(errors.New("a"), errors.New("b")), false, 1, "", "sample: a; b\n"},
		{"a stranger's text", "", errors.New("closed: \x1b[2J\r\x00\u202ex"), false, 1, "", "sample: closed: �[2J���x\n"},
		{"misused", "", fmt.Errorf("x: %w", Usagef("no %s", "file")), false, 2, "", "sample: x: no file (sample -h shows how to use it)\n"},
		{"unknown flag", "-x", nil, false, 2, "", "sample: flag provided but not defined: -x (sample -h shows how to use it)\n"},
		{"bad value", "-n y", nil, false, 2, "", "sample: invalid value \"y\" for flag -n: parse error (sample -h shows how to use it)\n"},
		{"interrupted", "", fmt.Errorf("wait: %w", context.Canceled), true, 1, "", "sample: interrupted\n"},
		{"told to end", "", nil, true, 0, "", ""},
		{"canceled by something else", "", context.Canceled, false, 1, "", "sample: context canceled\n"},
		{"help", "-h", nil, false, 0, "sample shows the frame.\n\nusage:\n  sample FILE\n    \tread a file\n  sample -\n", ""},
		{"help in long", "--help", nil, false, 0, "  -n int\n    \tnumber\n", ""},
		{"version", "-version", nil, false, 0, "sample ", ""},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if test.interrupted {
			cancel()
		}
		flags := flag.NewFlagSet("", flag.ExitOnError)
		flags.Int("n", 0, "number")
		var stdout, stderr bytes.Buffer
		code := sample.main(ctx, flags, strings.Fields(test.args), &stdout, &stderr, func(context.Context, []string) error { return test.err })
		cancel()
		if code != test.code || stderr.String() != test.stderr || !strings.Contains(stdout.String(), test.stdout) || test.stdout == "" && stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, %q, %q", test.name, code, &stdout, &stderr)
		}
	}
}

func TestArgs(t *testing.T) {
	if err := Args([]string{"a"}, 1); err != nil {
		t.Error(err)
	}
	if err := Args([]string{"a", "b"}, 1); err == nil || err.Error() != `unexpected argument "b"` {
		t.Errorf("got %v", err)
	}
}

// TestVersion checks what is said about a build.
func TestVersion(t *testing.T) {
	info := &debug.BuildInfo{
		Main: debug.Module{Version: "v0.1.0"}, Deps: []*debug.Module{{Path: "github.com/quic-go/quic-go", Version: "v0.65.0"}},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "0123456789abcdef"}, {Key: "vcs.modified", Value: "true"}},
	}
	for want, info := range map[string]*debug.BuildInfo{
		"sample v0.1.0 (revision 0123456789ab and changes), quic-go v0.65.0, go": info,
		"sample (unknown), go": nil,
	} {
		if got := versionLine("sample", info); !strings.HasPrefix(got, want) || strings.Contains(got, "\n") {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestDebug checks that a qlog file is complete when Close returns, that secrets are appended,
// and that a file that cannot be written is an error.
func TestDebug(t *testing.T) {
	dir := t.TempDir()
	keys := filepath.Join(dir, "keys")
	if err := os.WriteFile(keys, []byte("before\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSLKEYLOGFILE", keys)
	d := Debug{qlog: filepath.Join(dir, "a", "b")}
	if err := d.Open(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(d.Keys(), "secret")
	id := quic.ConnectionIDFromBytes([]byte{1, 2, 3, 4})
	producer := d.QUIC(&quic.Config{}).Tracer(t.Context(), true, id).AddProducer()
	producer.RecordEvent(qlog.ConnectionStateUpdated{State: qlog.ConnectionStateClosed})
	if err := errors.Join(producer.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(d.qlog, "01020304_client.sqlog")); err != nil || !strings.Contains(string(b), "connection_state_updated") {
		t.Errorf("got %q, %v", b, err)
	}
	if b, err := os.ReadFile(keys); err != nil || string(b) != "before\nsecret\n" {
		t.Errorf("got %q, %v", b, err)
	}
	d = Debug{qlog: filepath.Join(dir, "none")}
	if trace := d.trace(t.Context(), false, id); trace != nil {
		t.Error("a file in a missing folder")
	}
	if err := d.Close(); err == nil || !strings.HasPrefix(err.Error(), "-qlog: ") {
		t.Errorf("got %v", err)
	}
	d = Debug{}
	if d.Keys() != nil || d.QUIC(&quic.Config{}).Tracer != nil {
		t.Error("something is written by default")
	}
}
