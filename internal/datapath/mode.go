package datapath

import "fmt"

// Mode is how a program is attached to an interface. xdp.Mode documents the modes.
type Mode uint8

// The modes.
const (
	Auto Mode = iota
	Native
	Generic
)

// String returns the mode in one word.
func (m Mode) String() string {
	switch m {
	case Native:
		return "native"
	case Generic:
		return "generic"
	}
	return "auto"
}

// MarshalText implements [encoding.TextMarshaler].
func (m Mode) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns ErrConfig for
// any other text.
func (m *Mode) UnmarshalText(text []byte) error {
	for mode := Auto; mode <= Generic; mode++ {
		if mode.String() == string(text) {
			*m = mode
			return nil
		}
	}
	return fmt.Errorf("xdp: %w: mode %q: want auto, native or generic", ErrConfig, text)
}
