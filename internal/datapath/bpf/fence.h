// The order of reads of memory that another CPU may write meanwhile.
#pragma once
#include "types.h"

// reorders says that the processor may reorder loads. Set before load.
volatile const bool reorders = false;

// read_fence makes all reads before it happen before all reads after it. Where the processor keeps
// loads in order (x86, s390x), only the compiler has to be stopped. Elsewhere (arm64) the program needs
// a barrier, which BPF has no instruction for before Linux 6.15. But an atomic exchange is a full
// barrier, as every atomic operation of BPF that returns a value: arm64 runs SWPAL, which both acquires
// and releases, or a loop that ends with a DMB. It is done on the stack, whose line no other CPU has.
static __always_inline void read_fence(void) {
	barrier();
	if (reorders) {
		__u64 nothing = 0;
		__sync_lock_test_and_set(&nothing, 1);
		barrier();
	}
}
