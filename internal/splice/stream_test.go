package splice

import "testing"

// TestStreamCount checks that bytes are counted beyond 2^32, whatever came again.
func TestStreamCount(t *testing.T) {
	start := uint64(1<<32 - 1000)
	var s streamCount
	s.begin(uint32(start), 500)
	for _, tt := range []struct{ bytes, fresh uint64 }{
		{0, 500},
		{1, 501},
		{5000, 100},        // less than there is: a hole was filled
		{3 << 30, 3 << 30}, // 3 GiB at once
		{6 << 30, 5 << 30},
		{9 << 30, 9 << 30},
	} {
		if got := s.upTo(uint32(start+tt.bytes), tt.fresh); got != tt.bytes {
			t.Errorf("got %d, want %d", got, tt.bytes)
		}
	}
	if got := s.upTo(uint32(start+(8<<30)), 9<<30); got != 9<<30 {
		t.Errorf("an old number: got %d", got)
	}
}
