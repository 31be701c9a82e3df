package wire

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// datagram is a recorded datagram.
type datagram struct {
	flight string // name of its exchange
	from   Side
	idLen  int // length of the receiver's connection IDs
	data   []byte
}

// flightsFile has one datagram per line: flight, sender, length of the receiver's
// connection IDs, bytes in hexadecimal.
const flightsFile = "testdata/flights.txt"

// readFields returns the lines of a file that are not comments, split at spaces.
func readFields(tb testing.TB, name string) [][]string {
	tb.Helper()
	file, err := os.ReadFile(name)
	if err != nil {
		tb.Fatal(err)
	}
	var lines [][]string
	scanner := bufio.NewScanner(bytes.NewReader(file))
	for scanner.Scan() {
		if line := scanner.Text(); !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.Fields(line))
		}
	}
	if err := scanner.Err(); err != nil {
		tb.Fatal(err)
	}
	return lines
}

// flights returns the recorded datagrams.
func flights(tb testing.TB) []datagram {
	tb.Helper()
	var all []datagram
	for _, f := range readFields(tb, flightsFile) {
		d := datagram{flight: f[0], from: Client, data: unhex(tb, f[3])}
		if f[1] == "server" {
			d.from = Server
		}
		var err error
		if d.idLen, err = strconv.Atoi(f[2]); err != nil {
			tb.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

// firstOf returns the first datagram of a recorded flight that a side has sent.
func firstOf(tb testing.TB, flight string, from Side) datagram {
	tb.Helper()
	for _, d := range flights(tb) {
		if d.flight == flight && d.from == from {
			return d
		}
	}
	tb.Fatalf("no flight %s in %s", flight, flightsFile)
	return datagram{}
}

// writeFlights writes the file that flights reads.
func writeFlights(tb testing.TB, all []datagram) {
	tb.Helper()
	var out bytes.Buffer
	fmt.Fprintln(&out, "# Handshakes of quic-go, recorded by: go test -run TestFlights -update")
	for _, d := range all {
		from := "client"
		if d.from == Server {
			from = "server"
		}
		fmt.Fprintf(&out, "%s %s %d %x\n", d.flight, from, d.idLen, d.data)
	}
	if err := os.WriteFile(flightsFile, out.Bytes(), 0o644); err != nil {
		tb.Fatal(err)
	}
}

// rfc returns a sample from Appendix A of RFC 9001 or RFC 9369.
func rfc(tb testing.TB, name string) []byte {
	tb.Helper()
	for _, f := range readFields(tb, "testdata/rfc.txt") {
		if f[0] == name {
			return unhex(tb, f[1])
		}
	}
	tb.Fatalf("no sample %s", name)
	return nil
}

func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// seeds adds all recorded packets to a fuzz test, with the further arguments more.
func seeds(f *testing.F, more ...any) {
	f.Helper()
	for _, d := range flights(f) {
		f.Add(append([]any{d.data}, more...)...)
	}
	for _, line := range readFields(f, "testdata/rfc.txt") {
		f.Add(append([]any{unhex(f, line[1])}, more...)...)
	}
}
