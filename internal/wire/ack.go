package wire

// MayAcknowledge says whether the payload of an Initial of d has an ACK frame, so that its sender has got
// a packet before. It is true if that is not known: the frames of Google's versions are others.
func (d Dialect) MayAcknowledge(payload []byte) bool {
	switch d {
	case NoDialect, GoogleT050, GoogleT051, GoogleQ050:
		return true
	}
	r := reader{payload}
	for r.skipPadding(); len(r.b) > 0; r.skipPadding() {
		kind, ok := r.varint()
		switch {
		case !ok:
			return true
		case kind == frameACK || kind == frameACKECN:
			return true
		case kind == frameCrypto:
			if _, ok := r.crypto(); !ok {
				return true
			}
		case r.skip(kind) != nil:
			return true
		}
	}
	return false
}
