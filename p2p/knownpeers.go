package p2p

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quicway/quicway/internal/keyfile"
)

// Limits of a file of known peers.
const (
	maxKnownFile = 1 << 20 // bytes
	maxKnownLine = 1024    // bytes
	maxKnown     = 10_000  // peers
	maxKnownName = 64      // bytes of a name
)

// KnownPeer is a peer that has a name on this host.
type KnownPeer struct {
	// Name has 1 to 64 bytes of printable UTF-8 without space. It does not begin with "#",
	// and is not the text form of a PeerID. Upper and lower case differ.
	Name string
	// ID is the peer's ID, not zero.
	ID PeerID
	// Comment is any text of one line. It may be empty.
	Comment string
}

// KnownPeers are the peers of a file like ssh's known_hosts, in the order of the file. Each
// line has a name, a [PeerID], and perhaps a comment, with space or tabs between them:
//
//	# the machines at home
//	bob  gopc76ixmmcqpnveeo244ccofbor7js5soz6e6tbsxj3x26jvyrq  the laptop
//
// Empty lines, and lines that begin with "#", are left out. A line may end with CRLF, and the
// file begin with a byte order mark. It has at most 1 MiB and 10 000 peers, and a line at most
// 1024 bytes. A name occurs once; a peer may have several names.
//
// The file decides whom a name leads to, so whoever may change it must be trusted. KnownPeers
// does not change once it is made, and may be used concurrently.
type KnownPeers []KnownPeer

// LoadKnownPeers reads a file of known peers. If a line is malformed, the error wraps
// ErrMalformedKnownPeers and names file:line. It also wraps ErrMalformedKnownPeers if the file
// is too large, no regular file, or if everybody may change it (not checked on Windows). Other
// errors are those of the system, such as [fs.ErrNotExist].
func LoadKnownPeers(file string) (KnownPeers, error) {
	text, err := keyfile.Read(file, maxKnownFile, keyfile.Trusted)
	if err != nil {
		return nil, fmt.Errorf("p2p: load known peers: %w", knownFileError(err))
	}
	known, err := parseKnownPeers(file, text)
	if err != nil {
		return nil, fmt.Errorf("p2p: %w: %w", ErrMalformedKnownPeers, err)
	}
	return known, nil
}

// Find returns the ID of the peer with a name. A text that is the text form of a PeerID means
// that one, so that either may be written wherever a peer is named. Otherwise the error wraps
// ErrUnknownPeer.
func (k KnownPeers) Find(nameOrID string) (PeerID, error) {
	if id, err := ParsePeerID(nameOrID); err == nil {
		return id, nil
	}
	for i := range k {
		if k[i].Name == nameOrID {
			return k[i].ID, nil
		}
	}
	return PeerID{}, fmt.Errorf("p2p: %w: %.100q is neither a known name nor a peer ID", ErrUnknownPeer, nameOrID)
}

// NameOf returns the first name of a peer, or "" if it has none.
func (k KnownPeers) NameOf(id PeerID) string {
	for i := range k {
		if k[i].ID == id {
			return k[i].Name
		}
	}
	return ""
}

// AddKnownPeer adds a peer at the end of a file of known peers, and makes the file if it does
// not exist. It changes nothing if the peer has this name already. If another peer has the
// name, the error wraps ErrKnownPeer. Otherwise errors are those of [LoadKnownPeers], or wrap
// ErrMalformedKnownPeers if peer cannot be a line.
//
// The file is replaced as a whole: whoever reads it sees the old content or the new one. A
// symbolic link stays one. Processes that add peers at the same time wait for each other, with
// a file of the same name and ".lock".
func AddKnownPeer(file string, peer KnownPeer) error {
	line, err := peer.line()
	if err != nil {
		return fmt.Errorf("p2p: add known peer: %w: %w", ErrMalformedKnownPeers, err)
	}
	err = keyfile.Rewrite(file, maxKnownFile, keyfile.Trusted, func(old []byte) ([]byte, error) {
		return addKnownLine(file, old, peer, line)
	})
	if err != nil {
		return fmt.Errorf("p2p: add known peer: %w", knownFileError(err))
	}
	return nil
}

// addKnownLine returns the content of a file with another line.
func addKnownLine(file string, old []byte, peer KnownPeer, line string) ([]byte, error) {
	known, err := parseKnownPeers(file, old)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformedKnownPeers, err)
	}
	for _, other := range known {
		switch {
		case other.Name != peer.Name:
		case other.ID == peer.ID:
			return old, nil
		default:
			return nil, fmt.Errorf("%w: %s is %v in %s, not %v", ErrKnownPeer, peer.Name, other.ID, file, peer.ID)
		}
	}
	if len(known) == maxKnown {
		return nil, fmt.Errorf("%w: %s: more than %d peers", ErrMalformedKnownPeers, file, maxKnown)
	}
	out := bytes.Clone(old)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	return append(out, line...), nil
}

// knownFileError makes an error about the file one of this package.
func knownFileError(err error) error {
	for _, mine := range []error{keyfile.ErrExposed, keyfile.ErrTooLarge, keyfile.ErrIrregular} {
		if errors.Is(err, mine) {
			return fmt.Errorf("%w: %w", ErrMalformedKnownPeers, err)
		}
	}
	return err
}

// line returns the line of a peer, or why it cannot have one.
func (p KnownPeer) line() (string, error) {
	if name, rest := cutField(p.Name); name == "" || name != p.Name || rest != "" || name[0] == '#' {
		return "", fmt.Errorf("%.100q cannot be a name", p.Name)
	}
	line := p.Name + " " + p.ID.String()
	if comment := strings.TrimSpace(p.Comment); comment != "" {
		line += " " + comment
	}
	if _, err := parseKnownLine(line); err != nil {
		return "", err
	}
	return line + "\n", nil
}

// parseKnownPeers parses the content of a file. An error begins with file:line:.
func parseKnownPeers(file string, text []byte) (KnownPeers, error) {
	var known KnownPeers
	lines := make(map[string]int) // by name
	number := 0
	for line := range bytes.Lines(bytes.TrimPrefix(text, utf8BOM)) {
		number++
		peer, err := parseKnownLine(strings.TrimRight(string(line[:min(len(line), maxKnownLine+2)]), "\r\n"))
		switch {
		case err != nil:
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		case peer.Name == "":
			continue
		case lines[peer.Name] > 0:
			return nil, fmt.Errorf("%s:%d: the name %s is also in line %d", file, number, peer.Name, lines[peer.Name])
		case len(known) == maxKnown:
			return nil, fmt.Errorf("%s:%d: more than %d peers", file, number, maxKnown)
		}
		lines[peer.Name] = number
		known = append(known, peer)
	}
	return known, nil
}

// parseKnownLine parses a line without its end. The peer of an empty line or a comment has no
// name.
func parseKnownLine(line string) (KnownPeer, error) {
	switch {
	case len(line) > maxKnownLine:
		return KnownPeer{}, fmt.Errorf("the line has more than %d bytes", maxKnownLine)
	case !utf8.ValidString(line):
		return KnownPeer{}, errors.New("the line is not UTF-8")
	case strings.ContainsFunc(line, func(r rune) bool { return r != '\t' && !unicode.IsPrint(r) }):
		return KnownPeer{}, errors.New("the line has a character that cannot be printed")
	}
	name, rest := cutField(line)
	if name == "" || name[0] == '#' {
		return KnownPeer{}, nil
	}
	text, comment := cutField(rest)
	id, err := ParsePeerID(text)
	switch {
	case len(name) > maxKnownName:
		return KnownPeer{}, fmt.Errorf("the name has %d bytes, want at most %d", len(name), maxKnownName)
	case isPeerID(name):
		return KnownPeer{}, errors.New("the name is a peer ID, want a name before it")
	case text == "":
		return KnownPeer{}, errors.New("there is no peer ID behind the name")
	case err != nil:
		return KnownPeer{}, err
	case id.IsZero():
		return KnownPeer{}, errors.New("the peer ID is zero")
	}
	return KnownPeer{Name: name, ID: id, Comment: strings.Trim(comment, " \t")}, nil
}

// cutField returns the first field of a line, and what follows.
func cutField(line string) (field, rest string) {
	line = strings.TrimLeft(line, " \t")
	end := strings.IndexAny(line, " \t")
	if end < 0 {
		return line, ""
	}
	return line[:end], line[end:]
}

func isPeerID(text string) bool {
	_, err := ParsePeerID(text)
	return err == nil
}
