package nettest

import (
	"reflect"
	"testing"
)

func TestCountersParse(t *testing.T) {
	c := make(Counters)
	err := c.parseTables("Tcp: MaxConn RetransSegs\nTcp: -1 7\nTcpExt: PAWSEstab\nTcpExt: 18446744073709551615\n")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.parseList("Ip6InOctets                     \t12\n"); err != nil {
		t.Fatal(err)
	}
	want := Counters{"TcpMaxConn": 1<<64 - 1, "TcpRetransSegs": 7, "TcpExtPAWSEstab": 1<<64 - 1, "Ip6InOctets": 12}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %v, want %v", c, want)
	}
	later := c.Since(nil)
	later["TcpRetransSegs"] = 9
	if got, want := later.Since(c), (Counters{"TcpRetransSegs": 2}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, text := range []string{"Tcp: A\nUdp: 1", "Tcp: A B\nTcp: 1", "Tcp: A\nTcp: x"} {
		if c.parseTables(text) == nil {
			t.Errorf("no error for %q", text)
		}
	}
}
