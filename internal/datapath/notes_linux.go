package datapath

import "fmt"

// PutNote stores a note of up to [NoteSize] bytes about a session, for the next process, until the
// session is deleted. If the program is not pinned, PutNote does nothing.
func (v *Relay) PutNote(session uint32, note []byte) error {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	switch {
	case v.program.closed:
		return ErrClosed
	case v.notes == nil:
		return nil
	}
	value := make([]byte, NoteSize)
	if copy(value, note) < len(note) {
		return fmt.Errorf("xdp: put note: %w: %d bytes, want at most %d", ErrConfig, len(note), NoteSize)
	}
	if err := v.notes.Put(session, value); err != nil {
		return fmt.Errorf("xdp: put note on session %d: %w", session, err)
	}
	return nil
}

// Note returns the note of a session, padded with zeros to [NoteSize] bytes. If the program is not
// pinned, the note is all zeros.
func (v *Relay) Note(session uint32) ([]byte, error) {
	v.program.mu.Lock()
	defer v.program.mu.Unlock()
	note := make([]byte, NoteSize)
	switch {
	case v.program.closed:
		return nil, ErrClosed
	case v.notes == nil:
		return note, nil
	}
	if err := v.notes.Lookup(session, note); err != nil {
		return nil, fmt.Errorf("xdp: read note on session %d: %w", session, err)
	}
	return note, nil
}
