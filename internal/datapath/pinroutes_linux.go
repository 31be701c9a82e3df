package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// routeKeys returns a hash with the keys that the pinned routes were added with. Without any, nothing
// can be done with pinned routes, so routeKeys unpins the maps, and pins new keys.
func (p *pin) routeKeys() (h routeHash, err error) {
	if p == nil {
		return routeHash{keys: newRouteKeys()}, nil
	}
	path := filepath.Join(p.Maps(), pinnedKeys)
	h.keys, err = readRouteKeys(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	if err := p.unpinState(); err != nil {
		return h, err
	}
	h.keys = newRouteKeys()
	return h, pinRouteKeys(path, &h.keys)
}

// readRouteKeys reads the keys from a pinned map. The error is fs.ErrNotExist if there is none.
func readRouteKeys(path string) (keys routeKeys, err error) {
	m, err := ebpf.LoadPinnedMap(path, nil)
	if err == nil {
		err = errors.Join(m.Lookup(uint32(0), &keys), m.Close())
	}
	if err != nil {
		return keys, fmt.Errorf("read the keys of the pinned routes: %w", err)
	}
	return keys, nil
}

// pinRouteKeys pins a map with the keys. The map has them before it has a name, so that no process
// that ends leaves one without.
func pinRouteKeys(path string, keys *routeKeys) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: pinnedKeys, Type: ebpf.Array, KeySize: 4, ValueSize: 8 * uint32(len(keys)), MaxEntries: 1})
	if err != nil {
		return fmt.Errorf("make a map for the keys of the routes: %w", err)
	}
	if err := errors.Join(m.Put(uint32(0), keys), m.Pin(path), m.Close()); err != nil {
		return fmt.Errorf("pin the keys of the routes: %w", err)
	}
	return nil
}
