package wire

// Closes reports whether the payload of an Initial has a CONNECTION_CLOSE frame. Frames after an
// unreadable one do not count.
func (d Dialect) Closes(payload []byte) bool {
	crypto := d.cryptoFrame()
	for r := (reader{payload}); len(r.b) > 0; {
		kind, ok := r.varint()
		if !ok {
			return false
		}
		if kind == crypto {
			if _, ok := r.crypto(); !ok {
				return false
			}
			continue
		}
		if r.skip(kind) != nil {
			return false
		}
		if kind == frameConnClose {
			return true
		}
	}
	return false
}
