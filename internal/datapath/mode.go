package datapath

import "fmt"

// Mode is how a program is attached to an interface.
type Mode uint8

// The modes.
const (
	// Auto is Native, or else Generic. With a relay stage it is Generic on a
	// veth and on a bond: see the package comment.
	Auto Mode = iota
	// Native runs in the driver, before the kernel has spent anything on a
	// packet.
	Native
	// Generic runs in the kernel's network stack, with any driver. It sees
	// packets that the stack has put together, and passes these.
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
// what is no mode.
func (m *Mode) UnmarshalText(text []byte) error {
	for mode := Auto; mode <= Generic; mode++ {
		if mode.String() == string(text) {
			*m = mode
			return nil
		}
	}
	return fmt.Errorf("xdp: %w: mode %q is none of auto, native, generic", ErrConfig, text)
}
