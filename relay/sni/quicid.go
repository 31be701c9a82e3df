package sni

import "github.com/quicway/quicway/internal/wire"

// minKnownID is the minimum length of an upstream's connection ID by which a connection is
// found at another address, in bytes. Shorter ones can be guessed.
const minKnownID = 4

// connID is a connection ID that can be compared.
type connID struct {
	len   uint8
	bytes [wire.MaxIDLen]byte
}

// idOf returns the connection ID in b, or the zero connID, which is no connection's, if b is
// too long.
func idOf(b []byte) (id connID) {
	if len(b) <= wire.MaxIDLen {
		id.len = uint8(copy(id.bytes[:], b))
	}
	return id
}

// shortID returns the connection ID of a packet with a short header. ok is false if the packet
// is too short.
func shortID(packet []byte, length int) (id connID, ok bool) {
	b, err := wire.DstID(packet, length)
	return idOf(b), err == nil
}

// isShortID reports whether a packet with a short header has a connection ID.
func (id *connID) isShortID(packet []byte) bool {
	n := int(id.len)
	return len(packet) > n && string(packet[1:1+n]) == string(id.bytes[:n])
}

// maxIDs is the number of connection IDs that are remembered of a connection. An endpoint has
// up to eight that the peer may use, and replaces them while the connection lasts.
const maxIDs = 12

// idSet has the latest connection IDs of one connection.
type idSet struct {
	ids  [maxIDs]knownID
	next int // the index to replace next
}

// knownID is a connection ID by which a connection is found.
type knownID struct {
	connID
	// chosen says that the upstream has chosen the ID, and not the client.
	chosen bool
	// by is the flow by which the upstream has announced the ID in a long header, so that
	// only who receives its datagrams knows the ID; or nil.
	by *flow
}

// get returns the ID and who has announced it. k may be nil.
func (k *knownID) get() (connID, *flow) {
	if k == nil {
		return connID{}, nil
	}
	return k.connID, k.by
}

func (s *idSet) find(id connID) *knownID {
	for i := range s.ids {
		if k := &s.ids[i]; k.len > 0 && k.connID == id {
			return k
		}
	}
	return nil
}

// add adds an ID. It returns the one that it replaces, or the zero connID.
func (s *idSet) add(id connID, chosen bool, by *flow) (old connID) {
	k := &s.ids[s.next]
	s.next = (s.next + 1) % maxIDs
	old, *k = k.connID, knownID{id, chosen, by}
	return old
}
