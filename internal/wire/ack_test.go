package wire

import "testing"

// TestMayAcknowledge checks which payloads have an ACK frame, or may have one.
func TestMayAcknowledge(t *testing.T) {
	crypto := "\x06\x00\x03abc"
	for name, test := range map[string]struct {
		dialect Dialect
		payload string
		want    bool
	}{
		"a ClientHello":              {DialectV1, crypto + "\x00\x00", false},
		"a probe":                    {DialectV2, "\x01\x00\x00", false},
		"nothing":                    {DialectV1, "", false},
		"an ACK":                     {DialectV1, "\x02\x00\x00\x00\x00", true},
		"an ACK with ECN":            {Draft29, "\x03\x00\x00\x00\x00\x01\x02\x03", true},
		"an ACK after a ClientHello": {Draft22, crypto + "\x00\x02\x00\x00\x00\x00", true},
		"a close":                    {DialectV1, "\x1c\x02\x00\x00", false},
		"an unknown frame":           {DialectV1, "\x10\x00", true},
		"cut":                        {DialectV1, "\x06\x00\x09a", true},
		"Google's frames":            {GoogleT051, "\x08\x00\x03abc", true},
	} {
		if got := test.dialect.MayAcknowledge([]byte(test.payload)); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
