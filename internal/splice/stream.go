package splice

import "sync"

// streamCount counts the bytes of one direction of a stream, each once. The programs know the end
// of the data, a number modulo 2^32, and count the bytes of payload, of which some come again or
// out of order.
type streamCount struct {
	mu    sync.Mutex // guards the following
	start uint32     // sequence number of the first byte
	fresh uint64     // payload that had not been sent before, when it was looked at last
	bytes uint64     // of the stream, then
}

// begin sets the sequence number of the first byte that counts, and the payload that the programs
// have counted before it.
func (s *streamCount) begin(start uint32, fresh uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.start, s.fresh, s.bytes = start, fresh, 0
}

// upTo returns the number of bytes before a sequence number. fresh tells it from those that are
// 2^32 more or less: it may be wrong by 2^31 since the last call.
func (s *streamCount) upTo(end uint32, fresh uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	about := s.bytes + (fresh - s.fresh)
	bytes := about + uint64(int64(int32(end-s.start-uint32(about))))
	if int64(bytes-s.bytes) < 0 {
		return s.bytes // of a caller that has read the number before another one
	}
	s.bytes, s.fresh = bytes, fresh
	return bytes
}
