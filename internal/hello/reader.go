package hello

// reader reads a message. After a read beyond its end b is nil.
type reader struct{ b []byte }

// take reads n bytes. It returns nil if there are fewer.
func (r *reader) take(n int) []byte {
	if len(r.b) < n {
		r.b = nil
		return nil
	}
	field := r.b[:n:n]
	r.b = r.b[n:]
	return field
}

func (r *reader) uint8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return uint16(b[0])<<8 | uint16(b[1])
	}
	return 0
}

// uint16s reads the rest.
func (r *reader) uint16s() (all []uint16) {
	for len(r.b) > 0 {
		all = append(all, r.uint16())
	}
	return all
}

// vector reads a vector with a length field of n bytes.
func (r *reader) vector(n int) []byte {
	length := 0
	for _, b := range r.take(n) {
		length = length<<8 | int(b)
	}
	return r.take(length)
}
