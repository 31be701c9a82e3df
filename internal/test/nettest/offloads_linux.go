package nettest

import (
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offload is a feature of an interface that ethtool(8) can switch off.
type offload struct {
	name    string
	command uint32
}

var (
	checksumOffload = []offload{{"tx-checksumming", unix.ETHTOOL_STXCSUM}}
	sendOffloads    = []offload{
		{"tcp-segmentation-offload", unix.ETHTOOL_STSO},
		{"generic-segmentation-offload", unix.ETHTOOL_SGSO},
		{"tx-checksumming", unix.ETHTOOL_STXCSUM},
		{"scatter-gather", unix.ETHTOOL_SSG},
	}
	receiveOffloads = []offload{{"generic-receive-offload", unix.ETHTOOL_SGRO}}
)

// offloadsOff makes an interface of the host send packets that are complete: none is larger
// than the MTU, and each has its checksum.
func (h *Host) offloadsOff(name string) {
	h.tb.Helper()
	h.Do(func() error { return switchOff(name, sendOffloads) })
}

// SendOffloads lets an interface of the host send packets as one with a network card does:
// larger than the MTU, and without checksums. The other end of a cable gets them so.
func (h *Host) SendOffloads(name string) {
	h.tb.Helper()
	on := slices.Clone(sendOffloads)
	slices.Reverse(on) // what others need first
	h.Do(func() error { return setOffloads(name, on, 1) })
}

// ReceiveOffloads lets an interface of the host put packets together (GRO), as one with a network
// card does. An XDP program at the other end of a cable can only send to an interface that does, or
// that has a program as well.
func (h *Host) ReceiveOffloads(name string) {
	h.tb.Helper()
	h.Do(func() error { return setOffloads(name, receiveOffloads, 1) })
}

// switchOff switches offloads of an interface off, as ethtool -K does.
func switchOff(name string, offloads []offload) error { return setOffloads(name, offloads, 0) }

// setOffloads switches offloads on (1) or off (0).
func setOffloads(name string, offloads []offload, on uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, o := range offloads {
		value := struct{ cmd, data uint32 }{o.command, on}
		request := struct {
			name [unix.IFNAMSIZ]byte
			data unsafe.Pointer
			_    [16]byte
		}{data: unsafe.Pointer(&value)}
		copy(request.name[:], name)
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
			return fmt.Errorf("set %s of %s to %d: %w", o.name, name, on, errno)
		}
	}
	return nil
}
