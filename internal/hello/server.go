package hello

// Server is a ServerHello.
type Server struct {
	Version uint16 // the chosen version
	Cipher  uint16 // the chosen cipher suite
	Group   uint16 // the group of the key share; 0: there is none
}

// ParseServer parses a ServerHello with its message header.
func ParseServer(msg []byte) (*Server, error) {
	r := reader{msg}
	if r.uint8() != 2 {
		return nil, ErrInvalid
	}
	body := reader{r.vector(3)}
	s := &Server{Version: body.uint16()}
	body.take(32)  // random
	body.vector(1) // session ID
	s.Cipher = body.uint16()
	body.uint8() // compression
	if body.b == nil {
		return nil, ErrInvalid
	}
	for exts := (reader{body.vector(2)}); len(exts.b) > 0; {
		kind := exts.uint16()
		data := reader{exts.vector(2)}
		switch {
		case data.b == nil:
			return nil, ErrInvalid
		case kind == extSupportedVersions:
			s.Version = data.uint16()
		case kind == extKeyShare:
			s.Group = data.uint16()
		}
	}
	return s, nil
}
