package ports

import "testing"

// TestParseSpec checks what can be forwarded.
func TestParseSpec(t *testing.T) {
	for text, want := range map[string]Spec{
		"8080:localhost:80":                  {"tcp", "127.0.0.1:8080", "localhost:80"},
		"tcp:0:10.0.0.1:80":                  {"tcp", "127.0.0.1:0", "10.0.0.1:80"},
		"udp:*:53:[2001:db8::1]:5353":        {"udp", ":53", "[2001:db8::1]:5353"},
		"[::1]:2222:host.example:22":         {"tcp", "[::1]:2222", "host.example:22"},
		"udp:192.0.2.1:65535:127.0.0.1:1234": {"udp", "192.0.2.1:65535", "127.0.0.1:1234"},
	} {
		if got, err := ParseSpec(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "80", "80:80", "x:localhost:80", "80:localhost:0", "80:localhost:65536", "80::80", "-1:localhost:80",
		"1:2:3:4:5", "80:a b:80", "80:ho\nst:80", "80:[::1:80", "80:ho]st:80",
		"80:*:80",
	} {
		if got, err := ParseSpec(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

// TestPermits checks what is permitted.
func TestPermits(t *testing.T) {
	for permit, cases := range map[string]map[string]bool{
		"localhost:*":      {"127.0.0.1:1": true, "LOCALHOST:2": true, "[::1]:3": true, "[::ffff:127.1.2.3]:4": true, "10.0.0.1:80": false, ":80": false, "0.0.0.0:80": false, "localhost.example:80": false},
		"*:80":             {"10.0.0.1:80": true, ":80": true, "example.org:80": true, "example.org:81": false},
		"10.0.0.1:80":      {"10.0.0.1:80": true, "10.0.0.1:81": false, "10.0.0.2:80": false},
		"[2001:db8::1]:22": {"[2001:db8::1]:22": true, "[2001:db8::2]:22": false},
	} {
		var p Permits
		if err := p.Add(permit); err != nil {
			t.Errorf("%s: %v", permit, err)
		}
		for hostPort, want := range cases {
			if err := p.check(hostPort); (err == nil) != want {
				t.Errorf("%s permits %s: %v", permit, hostPort, err)
			}
		}
	}
	for _, text := range []string{"", "80", ":80", "host:", "host:x", "host:65536"} {
		if err := new(Permits).Add(text); err == nil {
			t.Errorf("%q is a permit", text)
		}
	}
}

// TestLocalhostIsLoopback checks that a permit for localhost leads to no other host.
func TestLocalhostIsLoopback(t *testing.T) {
	check := controlFor("LocalHost:80")
	for address, want := range map[string]bool{"127.0.0.1:80": true, "[::1]:80": true, "192.0.2.1:80": false, "0.0.0.0:80": false} {
		if err := check("tcp", address, nil); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
	if controlFor("localhost.example:80") != nil {
		t.Error("another name is checked")
	}
}
