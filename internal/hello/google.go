package hello

import (
	"bytes"
	"encoding/binary"
)

// Google is the first message of a client in Google QUIC, the CHLO ("QUIC Crypto"). It is a list of
// tags with values. Integers begin with the least byte:
//
//	"CHLO", number of tags (2 bytes), 0 (2 bytes),
//	tag (4 bytes) and end of its value (4 bytes), for each tag,
//	values
type Google struct {
	ServerName string // SNI
	UserAgent  string // UAID, such as "Chrome/69.0.3497.100 Windows NT 10.0; Win64; x64"
}

// Bounds of a CHLO.
const (
	maxGoogleTags  = 128
	maxGoogleValue = 256 // of the values that are read; the rest is left out
)

// IsGoogle reports whether b begins like a CHLO.
func IsGoogle(b []byte) bool { return bytes.HasPrefix(b, []byte("CHLO")) }

// GoogleLen returns the length of the CHLO at the beginning of b. It is 0 if b is too short to say, or
// begins with something else.
func GoogleLen(b []byte) int {
	if len(b) < 8 || !IsGoogle(b) {
		return 0
	}
	n := 8 + 8*int(binary.LittleEndian.Uint16(b[4:]))
	if n == 8 {
		return n
	}
	if len(b) < n {
		return 0
	}
	end := binary.LittleEndian.Uint32(b[n-4:])
	return n + int(min(end, 1<<24))
}

// ParseGoogle parses a CHLO.
func ParseGoogle(msg []byte) (*Google, error) {
	n := GoogleLen(msg)
	if n == 0 || n > len(msg) {
		return nil, ErrInvalid
	}
	tags := int(binary.LittleEndian.Uint16(msg[4:]))
	if tags > maxGoogleTags {
		return nil, ErrInvalid
	}
	out, values := new(Google), msg[8+8*tags:n]
	begin := uint32(0)
	for i := range tags {
		entry := msg[8+8*i:]
		end := binary.LittleEndian.Uint32(entry[4:])
		if end < begin || int64(end) > int64(len(values)) {
			return nil, ErrInvalid
		}
		value := values[begin:min(end, begin+maxGoogleValue)]
		switch string(entry[:4]) {
		case "SNI\x00":
			out.ServerName = string(value)
		case "UAID":
			out.UserAgent = string(value)
		}
		begin = end
	}
	return out, nil
}
