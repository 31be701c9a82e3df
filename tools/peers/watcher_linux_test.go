package main

import (
	"errors"
	"os/exec"
	"strings"
	"testing"
)

// TestLines checks what is read of the output of each watcher.
func TestLines(t *testing.T) {
	outputs := map[string]string{
		"monitor": "#path\tquic\n" +
			"1.0\tCa\t10.1.0.1\t1\t198.18.0.1\t443\t1\tf5\t3c\tac\tc000000.quic.example\th3\tII\n" +
			"2.0\tCb\t10.1.0.1\t2\t198.18.0.1\t443\t1\tf5\t3c\tac\t-\t-\tII\n" +
			"3.0\tCc\t10.1.0.1\t3\t198.18.0.1\t443\t1\tf5\t3c\tac\tother.example\th3\tII\n#close\n",
		"ndpi": "#flow_id,protocol,a,b,c,d,e,f,g,h,ndpi_proto,server_name_sni,x\n" +
			"1,17,,,,,,,,,QUIC,c000000.quic.example,5\n2,17,,,,,,,,,QUIC.Google,,5\n3,17,,,,,,,,,QUIC,other.example,5\n" +
			"4,6,,,,,,,,,TLS,c000001.quic.example,5\n",
		"tshark": "0\tc000000.quic.example\n0\tc000000.quic.example\n1\t\n2\tother.example\n",
	}
	for _, w := range watchers {
		connections, names, err := w.count(strings.NewReader(outputs[w.name]))
		if err != nil || connections != 3 || names != 1 {
			t.Errorf("%s: %d connections and %d names, %v; want 3 and 1", w.name, connections, names, err)
		}
	}
}

// TestWatch runs the watchers that are installed.
func TestWatch(t *testing.T) {
	dir := t.TempDir()
	capture, content, err := makeCapture(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir("../..") // where tools run
	b := &builder{ctx: t.Context(), dir: dir, built: make(map[string]error)}
	for _, w := range watchers {
		f, err := w.watch(b, capture)
		if errors.Is(err, exec.ErrNotFound) {
			t.Logf("%s is not installed", w.name)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if f.connections < content.Connections/2 || f.connections > content.Connections || f.names < content.Connections/4 || f.cpu == 0 || f.memory == 0 {
			t.Errorf("%s: %+v of %+v", w.name, f, content)
		}
		if w.name == "monitor" && (f.connections != content.Connections || f.names != content.Connections) {
			t.Errorf("%s: %+v of %+v", w.name, f, content)
		}
	}
}
