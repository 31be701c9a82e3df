package xdp

import "github.com/quicway/quicway/internal/datapath"

// Mode is how a program is attached to an interface.
type Mode uint8

// The modes.
const (
	// Auto is Native if the driver supports that, and Generic otherwise. With a relay stage
	// Auto is Generic on a veth and on a bond: see the package documentation.
	Auto = Mode(datapath.Auto)
	// Native runs the program in the driver, before the kernel has done any work for a
	// packet.
	Native = Mode(datapath.Native)
	// Generic runs the program in the kernel's network stack, with any driver. It passes
	// packets that GRO has put together.
	Generic = Mode(datapath.Generic)
)

// String returns the mode in one word: auto, native or generic.
func (m Mode) String() string { return datapath.Mode(m).String() }

// MarshalText implements [encoding.TextMarshaler].
func (m Mode) MarshalText() ([]byte, error) { return datapath.Mode(m).MarshalText() }

// UnmarshalText implements [encoding.TextUnmarshaler]. It returns ErrConfig for any other text.
func (m *Mode) UnmarshalText(text []byte) error { return (*datapath.Mode)(m).UnmarshalText(text) }
