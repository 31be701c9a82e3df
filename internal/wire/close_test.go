package wire

import "testing"

// TestCloses checks which payloads of Initials have a CONNECTION_CLOSE frame.
func TestCloses(t *testing.T) {
	for name, test := range map[string]struct {
		dialect Dialect
		payload string
		want    bool
	}{
		"alone":                     {DialectV1, "\x1c\x00\x00\x03bye", true},
		"without a reason":          {DialectV1, "\x1c\x00\x00\x00", true},
		"after others":              {DialectV1, "\x00\x01\x02\x05\x00\x00\x05\x06\x00\x01x\x1c\x00\x00\x00", true},
		"before others":             {DialectV1, "\x1c\x00\x00\x00\x00\x00", true},
		"none":                      {DialectV1, "\x06\x00\x01\x1c\x00", false},
		"empty":                     {DialectV1, "", false},
		"cut":                       {DialectV1, "\x1c\x00\x00\x03by", false},
		"after an unreadable frame": {DialectV1, "\x08\x1c\x00\x00\x00", false},
		"Google's CRYPTO":           {GoogleT050, "\x08\x00\x01x\x1c\x00\x00\x00", true},
	} {
		if got := test.dialect.Closes([]byte(test.payload)); got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}
