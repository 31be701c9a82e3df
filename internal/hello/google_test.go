package hello

import (
	"encoding/binary"
	"strings"
	"testing"
)

// chlo returns a CHLO with tags and values, one after the other.
func chlo(tags ...string) []byte {
	msg := binary.LittleEndian.AppendUint16([]byte("CHLO"), uint16(len(tags)/2))
	msg = append(msg, 0, 0)
	values := ""
	for i := 0; i < len(tags); i += 2 {
		values += tags[i+1]
		msg = append(msg, tags[i]...)
		msg = binary.LittleEndian.AppendUint32(msg, uint32(len(values)))
	}
	return append(msg, values...)
}

func TestParseGoogle(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for name, test := range map[string]struct {
		msg  []byte
		want Google
		ok   bool
	}{
		"both":         {chlo("PAD\x00", "-----", "SNI\x00", "name.example", "VER\x00", "Q046", "UAID", "Chrome/1", "NONC", "n"), Google{"name.example", "Chrome/1"}, true},
		"name only":    {chlo("SNI\x00", "name.example"), Google{"name.example", ""}, true},
		"empty values": {chlo("SNI\x00", "", "UAID", ""), Google{}, true},
		"no tags":      {chlo(), Google{}, true},
		"long values":  {chlo("SNI\x00", long, "UAID", long), Google{long[:maxGoogleValue], long[:maxGoogleValue]}, true},
		"more follows": {append(chlo("SNI\x00", "a"), "CHLO"...), Google{"a", ""}, true},
		"another":      {append([]byte("REJ\x00"), chlo("SNI\x00", "a")[4:]...), Google{}, false},
		"cut":          {chlo("SNI\x00", "a", "UAID", "b")[:20], Google{}, false},
		"backwards":    {[]byte("CHLO\x02\x00\x00\x00SNI\x00\x05\x00\x00\x00UAID\x02\x00\x00\x00abcdef"), Google{}, false},
		"beyond":       {[]byte("CHLO\x02\x00\x00\x00SNI\x00\x09\x00\x00\x00UAID\x09\x00\x00\x00abcdef"), Google{}, false},
		"many tags":    {chlo(strings.Split(strings.Repeat("TAGS,v,", maxGoogleTags+1), ",")[:2*maxGoogleTags+2]...), Google{}, false},
	} {
		got, err := ParseGoogle(test.msg)
		if (err == nil) != test.ok || err == nil && *got != test.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, test.want)
		}
	}
	whole := chlo("SNI\x00", "name.example", "UAID", "Chrome/1")
	for n := range whole {
		if got, err := ParseGoogle(whole[:n]); err == nil {
			t.Errorf("%d bytes are %+v", n, got)
		}
		if got := GoogleLen(whole[:n]); got != 0 && got != len(whole) {
			t.Errorf("%d bytes: got a length of %d, want %d", n, got, len(whole))
		}
	}
}

// FuzzGoogle checks that values are within the message, and bounded.
func FuzzGoogle(f *testing.F) {
	f.Add(chlo("PAD\x00", "-----", "SNI\x00", "name.example", "UAID", "Chrome/1"))
	f.Add([]byte("CHLO\xff\xff\x00\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		c, err := ParseGoogle(msg)
		if err == nil && (!IsGoogle(msg) || GoogleLen(msg) > len(msg) || len(c.ServerName) > min(len(msg), maxGoogleValue) || len(c.UserAgent) > maxGoogleValue) {
			t.Fatalf("got %+v of %d bytes", c, len(msg))
		}
	})
}
