package splice

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/quicway/quicway/internal/bpffs"
)

// pin is a directory on a BPF file system. Maps and links that are pinned there outlive the process.
// The methods of a nil pin do nothing: nothing is pinned.
type pin struct {
	*bpffs.Dir
	keys, notes *ebpf.Map
}

// Names in the directory. Their version changes when the layout of the maps changes, so that no
// process takes over maps of another layout.
const (
	pinVersion    = "1"
	pinnedMaps    = "maps-" + pinVersion
	pinnedKeys    = "keys"
	pinnedNotes   = "notes"
	pinnedLinks   = "link-" + pinVersion + "-" // followed by the index of the interface, and one of:
	pinnedIngress = "-ingress"
	pinnedEgress  = "-egress"
)

// keptMaps are the maps of the programs that the next process takes over.
var keptMaps = []string{spliceMapPairs, spliceMapFlows, spliceMapCounters, spliceMapEvents}

// openPin creates the directory and locks it, so that no other process uses it. An empty dir means no
// pin.
func openPin(dir string) (*pin, error) {
	if dir == "" {
		return nil, nil
	}
	d, err := bpffs.Open(dir, pinnedMaps)
	if err != nil {
		return nil, explainPin(err)
	}
	return &pin{Dir: d}, nil
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
	return errors.Join(p.keys.Close(), p.notes.Close(), p.Close())
}

// pairs returns the number of pairs that the pinned maps have room for. Without such maps it is most.
func (p *pin) pairs(most int) int {
	if p == nil {
		return most
	}
	m, err := ebpf.LoadPinnedMap(p.mapPath(spliceMapPairs), nil)
	if err != nil {
		return most
	}
	defer m.Close()
	return int(m.MaxEntries())
}

func (p *pin) mapPath(name string) string { return filepath.Join(p.Maps(), name) }

// open opens the maps that only Go uses, or creates them, and returns the keys of the table of flows.
func (p *pin) open(pairs int) (keys [hashKeys]uint64, err error) {
	keys = newKeys(pairs)
	if p == nil {
		return keys, nil
	}
	opts := ebpf.MapOptions{PinPath: p.Maps()}
	p.keys, err = ebpf.NewMapWithOptions(&ebpf.MapSpec{Name: pinnedKeys, Type: ebpf.Array, KeySize: 4, ValueSize: 8 * hashKeys, MaxEntries: 1, Pinning: ebpf.PinByName}, opts)
	if err != nil {
		return keys, err
	}
	p.notes, err = ebpf.NewMapWithOptions(&ebpf.MapSpec{Name: pinnedNotes, Type: ebpf.Array, KeySize: 4, ValueSize: 2 * uint32(noteSize), MaxEntries: uint32(pairs), Pinning: ebpf.PinByName}, opts)
	if err != nil {
		return keys, err
	}
	var pinned [hashKeys]uint64
	if err := p.keys.Lookup(uint32(0), &pinned); err != nil {
		return keys, err
	}
	if pinned == [hashKeys]uint64{} { // the map is new: no pair is in it without keys
		return keys, p.keys.Put(uint32(0), keys)
	}
	return pinned, nil
}

// load loads the objects, with the pinned maps if there are any.
func (p *pin) load(spec *ebpf.CollectionSpec, objects *spliceObjects) error {
	if p == nil {
		return spec.LoadAndAssign(objects, nil)
	}
	for _, name := range keptMaps {
		spec.Maps[name].Pinning = ebpf.PinByName
	}
	return spec.LoadAndAssign(objects, &ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: p.Maps()}})
}

// note notes what the next process has to know of a pair.
func (p *pin) note(slot uint32, notes *[2]note) error {
	if p == nil {
		return nil
	}
	return p.notes.Put(slot, notes)
}

// noted returns what was noted of a pair.
func (p *pin) noted(slot uint32) (notes [2]note, err error) {
	return notes, p.notes.Lookup(slot, &notes)
}

// linkPath returns the file of a link.
func (p *pin) linkPath(iface int, hook string) string {
	return p.Path(pinnedLinks + strconv.Itoa(iface) + hook)
}

// keep pins an attachment, so that it outlives the process.
func (p *pin) keep(a *attachment) error {
	if p == nil {
		return nil
	}
	err := a.ingress.Pin(p.linkPath(a.index, pinnedIngress))
	if err == nil {
		err = a.egress.Pin(p.linkPath(a.index, pinnedEgress))
	}
	return err
}

// forget removes the files of an attachment.
func (p *pin) forget(index int) error {
	if p == nil {
		return nil
	}
	return errors.Join(bpffs.RemoveFile(p.linkPath(index, pinnedIngress)), bpffs.RemoveFile(p.linkPath(index, pinnedEgress)))
}

// attached returns the indices of the interfaces whose attachments are pinned.
func (p *pin) attached() (indices []int, err error) {
	if p == nil {
		return nil, nil
	}
	files, err := filepath.Glob(p.Path(pinnedLinks + "*" + pinnedIngress))
	for _, f := range files {
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(f), pinnedLinks), pinnedIngress)
		if index, err := strconv.Atoi(name); err == nil {
			indices = append(indices, index)
		}
	}
	return indices, err
}

// Unpin removes what a process has pinned in a directory. Connections that the kernel relays are reset
// when their ends next send. Unpin returns ErrBusy if a process uses the directory, and nil if there is
// none.
func Unpin(dir string) error {
	d, err := bpffs.Lock(dir, pinnedMaps)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("splice: unpin: %w", explainPin(err))
	}
	p := &pin{Dir: d}
	if err := errors.Join(p.unpinLinks(), p.unpinMaps(), p.Remove(), p.close()); err != nil {
		return fmt.Errorf("splice: unpin: %w", err)
	}
	return nil
}

func (p *pin) unpinLinks() error {
	files, err := filepath.Glob(p.Path(pinnedLinks + "*"))
	errs := []error{err}
	for _, f := range files {
		l, err := link.LoadPinnedLink(f, nil)
		if err == nil {
			err = end(l)
		}
		errs = append(errs, err, bpffs.RemoveFile(f))
	}
	return errors.Join(errs...)
}

func (p *pin) unpinMaps() error {
	return p.RemoveMaps(append([]string{pinnedKeys, pinnedNotes}, keptMaps...)...)
}

// abandon is close for a process that has failed to load. It removes the directory if no link is
// pinned there.
func (p *pin) abandon() error {
	if p == nil {
		return nil
	}
	if indices, err := p.attached(); err != nil || len(indices) > 0 {
		return errors.Join(err, p.close())
	}
	return errors.Join(p.unpinMaps(), p.Remove(), p.close())
}
