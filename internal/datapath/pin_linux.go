package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/internal/bpffs"
)

// pin is a directory on a BPF file system. Maps and links that are pinned there outlive the
// process. The methods of a nil pin do nothing: nothing is pinned.
type pin struct{ *bpffs.Dir }

// Names in the directory. The name of the maps' directory changes when their layout changes,
// so that no process takes over maps of another layout.
const (
	pinnedMaps  = "maps-4"
	pinnedNotes = "notes"
	pinnedKeys  = "route_keys"
	pinnedLinks = "link-" // followed by the index of the interface
)

// formerMaps are the names that the maps' directory had in earlier versions.
var formerMaps = []string{"maps-1", "maps-2", "maps-3"}

// keptMaps are the maps that the next process takes over. The maps of the quota stage and of
// the monitor stage are not among them: each process begins with empty ones.
var keptMaps = []string{
	datapathMapCounters, datapathMapPorts, datapathMapRouteSets, datapathMapLegs,
	datapathMapCommons, datapathMapEvents, datapathMapDevices, datapathMapNext,
}

// newNotes creates the map of notes, or opens the pinned one.
func (p *pin) newNotes(sessions uint32) (*ebpf.Map, error) {
	spec := &ebpf.MapSpec{Name: pinnedNotes, Type: ebpf.Array, KeySize: 4, ValueSize: NoteSize, MaxEntries: sessions, Pinning: ebpf.PinByName}
	return ebpf.NewMapWithOptions(spec, ebpf.MapOptions{PinPath: p.Maps()})
}

// openPin creates the directory and locks it, so that no other process uses it. An empty dir
// means no pin.
func openPin(dir string) (*pin, error) {
	if dir == "" {
		return nil, nil
	}
	d, err := bpffs.Open(dir, pinnedMaps)
	if err != nil {
		return nil, explainPin(err)
	}
	return &pin{d}, nil
}

// explainPin wraps an error of a directory in one of the errors of this package.
func explainPin(err error) error {
	switch {
	case errors.Is(err, bpffs.ErrUnfit):
		return fmt.Errorf("%w: Pin: %w", ErrConfig, err)
	case errors.Is(err, bpffs.ErrBusy):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return explain(err)
}

// close unlocks the directory, so that the next process can use it.
func (p *pin) close() error {
	if p == nil {
		return nil
	}
	return p.Close()
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
	return errors.Join(p.unpinMaps(), p.Remove(), p.close())
}

// load loads the objects. It uses the pinned maps if their sizes are the same.
func (p *pin) load(spec *ebpf.CollectionSpec, objects *datapathObjects, programs ebpf.ProgramOptions, log *slog.Logger) error {
	if p == nil {
		return spec.LoadAndAssign(objects, &ebpf.CollectionOptions{Programs: programs})
	}
	for _, name := range keptMaps {
		spec.Maps[name].Pinning = ebpf.PinByName
	}
	opts := &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.Maps()}, Programs: programs}
	err := spec.LoadAndAssign(objects, opts)
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		log.Warn("not taking over the pinned maps: their sizes differ from the configuration", "err", err)
		if err := p.unpinState(); err != nil {
			return err
		}
		err = spec.LoadAndAssign(objects, opts)
	}
	return err
}

// unpinState unpins the maps, and keeps the keys of the routes, which do not depend on sizes.
func (p *pin) unpinState() error {
	return p.RemoveMaps(append([]string{pinnedNotes}, keptMaps...)...)
}

// unpinMaps unpins all maps, also those of earlier versions.
func (p *pin) unpinMaps() error {
	_, err := p.RemoveFormer(formerMaps...)
	return errors.Join(err, p.unpinState(), p.RemoveMaps(pinnedKeys))
}

// removeFormer unpins the maps of an earlier version. The program of that version works with them
// until this one takes its place.
func (p *pin) removeFormer(log *slog.Logger) error {
	if p == nil {
		return nil
	}
	found, err := p.RemoveFormer(formerMaps...)
	if found {
		log.Warn("not taking over the pinned maps: they are of an earlier version")
	}
	return err
}

func (p *pin) linkPath(iface int) string {
	return p.Path(pinnedLinks + strconv.Itoa(iface))
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
	d, err := bpffs.Lock(dir, pinnedMaps)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("xdp: unpin: %w", explainPin(err))
	}
	p := &pin{d}
	if err := errors.Join(p.unpinLinks(), p.unpinMaps(), p.Remove(), p.close()); err != nil {
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
	return filepath.Glob(p.Path(pinnedLinks + "*"))
}
