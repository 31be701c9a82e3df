// Package peer has the flags of programs that are peers: who they are, whom they know, and
// what they write for debugging.
package peer

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/quic-go/quic-go"

	"github.com/quicway/quicway/examples/internal/program"
	"github.com/quicway/quicway/p2p"
)

// Peer is this program as a peer.
type Peer struct {
	identity, known string
	debug           program.Debug
	names           p2p.KnownPeers
}

// Flags defines the flags. Call it before [program.Program.Main].
func (p *Peer) Flags() {
	flag.StringVar(&p.identity, "identity", "", "`file` with the private key, created if missing, so that the ID of this peer lasts (default: a new key each time)")
	flag.StringVar(&p.known, "peers", "", "`file` with names of peers, one NAME ID in a line (default: known_peers in "+shownFolder()+")")
	p.debug.Flags()
}

// Set sets what the flags say in a configuration. The caller closes the Peer when the endpoint
// is closed.
func (p *Peer) Set(conf *p2p.Config) (err error) {
	if p.identity != "" {
		if conf.Identity, err = p2p.LoadOrCreateIdentity(p.identity); err != nil {
			return err
		}
	}
	if err := p.load(); err != nil {
		return err
	}
	if err := p.debug.Open(); err != nil {
		return err
	}
	conf.KeyLogWriter = p.debug.Keys()
	conf.QUIC = p.debug.QUIC(&quic.Config{})
	return nil
}

// load loads the names of peers. Only a file that is not named may be missing.
func (p *Peer) load() (err error) {
	file := p.file()
	if file == "" {
		return nil
	}
	p.names, err = p2p.LoadKnownPeers(file)
	if p.known == "" && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// file returns the name of the file with the names of peers, or "" if there is no place for
// it.
func (p *Peer) file() string {
	if p.known != "" {
		return p.known
	}
	folder, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(folder, "quicway", "known_peers")
}

func shownFolder() string {
	folder, err := os.UserConfigDir()
	if err != nil {
		return "the folder for configurations"
	}
	return filepath.Join(folder, "quicway")
}

// Find returns the peer with a name or an ID. Call it after Set.
func (p *Peer) Find(nameOrID string) (p2p.PeerID, error) {
	id, err := p.names.Find(nameOrID)
	if err != nil {
		return id, fmt.Errorf("%w: see -peers", err)
	}
	return id, nil
}

// Show returns the name and the ID of a peer.
func (p *Peer) Show(id p2p.PeerID) string {
	if name := p.names.NameOf(id); name != "" {
		return fmt.Sprintf("%s (%v)", name, id)
	}
	return id.String()
}

// Remember gives a peer a name, for the next time.
func (p *Peer) Remember(name string, id p2p.PeerID) error {
	file := p.file()
	if file == "" {
		return errors.New("there is no folder for known_peers: want -peers")
	}
	if p.known == "" {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
	}
	return p2p.AddKnownPeer(file, p2p.KnownPeer{Name: name, ID: id})
}

// Close writes the files for debugging to their end.
func (p *Peer) Close() error { return p.debug.Close() }
