package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// pin is a directory on a BPF file system. Maps and links that are pinned there outlive the
// process. The methods of a nil pin do nothing: nothing is pinned.
type pin struct {
	dir  string
	lock *os.File
}

// Names in the directory. The name of the maps' directory changes when their layout changes,
// so that no process takes over maps of another layout.
const (
	pinnedMaps  = "maps-2"
	pinnedNotes = "notes"
	pinnedLinks = "link-" // followed by the index of the interface
)

// keptMaps are the maps that the next process takes over. The maps of the quota stage and of
// the monitor stage are not among them: each process begins with empty ones.
var keptMaps = []string{
	datapathMapCounters, datapathMapPorts, datapathMapRoutes, datapathMapSessions,
	datapathMapEvents, datapathMapDevices, datapathMapNext,
}

// newNotes creates the map of notes, or opens the pinned one.
func (p *pin) newNotes(sessions uint32) (*ebpf.Map, error) {
	spec := &ebpf.MapSpec{Name: pinnedNotes, Type: ebpf.Array, KeySize: 4, ValueSize: NoteSize, MaxEntries: sessions, Pinning: ebpf.PinByName}
	return ebpf.NewMapWithOptions(spec, ebpf.MapOptions{PinPath: filepath.Join(p.dir, pinnedMaps)})
}

// openPin creates the directory and locks it, so that no other process uses it. An empty dir
// means no pin.
func openPin(dir string) (*pin, error) {
	if dir == "" {
		return nil, nil
	}
	for {
		if err := os.MkdirAll(filepath.Join(dir, pinnedMaps), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("create the directory to pin in: %w", explain(err))
		}
		p, err := lockPin(dir)
		switch {
		case errors.Is(err, errReplaced), errors.Is(err, fs.ErrNotExist):
			continue // another process has just removed it
		case errors.Is(err, ErrConfig):
			_ = (&pin{dir: dir}).remove() // fails if the directory was not empty before
		}
		return p, err
	}
}

// errReplaced: the directory was removed before it was locked. The lock has no effect, because
// another process may have created a directory with the same name.
var errReplaced = errors.New("the directory was removed before it was locked")

// lockPin opens a directory that exists, and locks it.
func lockPin(dir string) (*pin, error) {
	lock, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	p := &pin{dir: dir, lock: lock}
	var stat unix.Statfs_t
	if err := unix.Fstatfs(int(lock.Fd()), &stat); err != nil {
		return nil, errors.Join(err, p.close())
	}
	if uint32(stat.Type) != unix.BPF_FS_MAGIC {
		err := fmt.Errorf("%w: Pin: %s is not on a BPF file system; mount one with: mount -t bpf bpf /sys/fs/bpf", ErrConfig, dir)
		return nil, errors.Join(err, p.close())
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		err := fmt.Errorf("%w: another process uses the directory %s", ErrBusy, dir)
		return nil, errors.Join(err, p.close())
	}
	if err := p.current(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// current returns errReplaced if the locked directory is not the one that now has its name.
func (p *pin) current() error {
	locked, err := p.lock.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Stat(p.dir); err != nil || !os.SameFile(locked, named) {
		return errReplaced
	}
	return nil
}

// close unlocks the directory, so that the next process can use it.
func (p *pin) close() error {
	if p == nil {
		return nil
	}
	return p.lock.Close()
}

// abandon is close for a process that has failed to load. It removes the maps and the
// directory if no link is pinned there.
func (p *pin) abandon() error {
	if p == nil {
		return nil
	}
	if links, err := p.links(); err != nil || len(links) > 0 {
		return errors.Join(err, p.close())
	}
	return errors.Join(p.unpinMaps(), p.remove(), p.close())
}

// load loads the objects. It uses the pinned maps if their sizes are the same.
func (p *pin) load(spec *ebpf.CollectionSpec, objects *datapathObjects, programs ebpf.ProgramOptions, log *slog.Logger) error {
	if p == nil {
		return spec.LoadAndAssign(objects, &ebpf.CollectionOptions{Programs: programs})
	}
	for _, name := range keptMaps {
		spec.Maps[name].Pinning = ebpf.PinByName
	}
	opts := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: filepath.Join(p.dir, pinnedMaps)}, Programs: programs}
	err := spec.LoadAndAssign(objects, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		log.Warn("not taking over the pinned maps: their sizes differ from the configuration", "err", err)
		if err := p.unpinMaps(); err != nil {
			return err
		}
		err = spec.LoadAndAssign(objects, opts)
	}
	return err
}

func (p *pin) unpinMaps() error {
	var errs []error
	for _, name := range append([]string{pinnedNotes}, keptMaps...) {
		if err := os.Remove(filepath.Join(p.dir, pinnedMaps, name)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (p *pin) linkPath(iface int) string {
	return filepath.Join(p.dir, pinnedLinks+strconv.Itoa(iface))
}

// keep pins an attachment, so that it outlives the process.
func (p *pin) keep(a *attachment) error {
	if p == nil {
		return nil
	}
	return a.link.Pin(p.linkPath(a.index))
}

// pinnedAttachment returns the attachment that an earlier process has pinned for an interface,
// or nil.
func (p *pin) pinnedAttachment(iface int) (*attachment, error) {
	if p == nil {
		return nil, nil
	}
	path := p.linkPath(iface)
	l, err := link.LoadPinnedLink(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, explain(err))
	}
	return &attachment{index: iface, mode: modeOf(iface), link: l}, nil
}

// takeOver replaces the program that an earlier process has left on an interface. It returns
// nil if there is none. A program in another mode than the given one is detached.
func (p *pin) takeOver(prog *ebpf.Program, iface *net.Interface, mode Mode) (*attachment, error) {
	a, err := p.pinnedAttachment(iface.Index)
	if a == nil || err != nil {
		return nil, err
	}
	a.name = iface.Name
	if mode == Auto || mode == a.mode {
		if err = a.link.Update(prog); err == nil {
			return a, nil
		}
		// The interface of the link was deleted, and this is another one with its
		// index.
		if !errors.Is(err, unix.ENOLINK) {
			return nil, errors.Join(fmt.Errorf("take over %s: %w", p.linkPath(a.index), explain(err)), a.link.Close())
		}
	}
	return nil, a.end()
}

// modeOf returns the mode of the program on an interface, or Auto if there is no program.
func modeOf(iface int) Mode {
	l, err := netlink.LinkByIndex(iface)
	if err != nil || l.Attrs().Xdp == nil {
		return Auto
	}
	switch l.Attrs().Xdp.AttachMode {
	case nl.XDP_ATTACHED_DRV:
		return Native
	case nl.XDP_ATTACHED_SKB:
		return Generic
	}
	return Auto
}

// Pinned says whether the program outlives the process.
func (p *Program) Pinned() bool { return p.pin != nil }

// Unpin detaches and removes the program that is pinned in a directory: xdp.Unpin documents
// it.
func Unpin(dir string) error {
	p, err := lockPin(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("xdp: unpin: %w", err)
	}
	if err := errors.Join(p.unpinLinks(), p.unpinMaps(), p.remove(), p.close()); err != nil {
		return fmt.Errorf("xdp: unpin: %w", err)
	}
	return nil
}

func (p *pin) unpinLinks() error {
	links, err := p.links()
	errs := []error{err}
	for _, path := range links {
		l, err := link.LoadPinnedLink(path, nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, (&attachment{link: l}).end())
	}
	return errors.Join(errs...)
}

// links returns the files of pinned attachments.
func (p *pin) links() ([]string, error) {
	return filepath.Glob(filepath.Join(p.dir, pinnedLinks+"*"))
}

// remove removes the directory. It fails if the directory is not empty.
func (p *pin) remove() error {
	return errors.Join(os.Remove(filepath.Join(p.dir, pinnedMaps)), os.Remove(p.dir))
}
