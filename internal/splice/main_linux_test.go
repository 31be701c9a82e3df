package splice

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"testing"
	"time"
)

// atOnce is how many tests run at the same time, unless -parallel says so: most wait for the kernel, or for
// timers of TCP, and each has network namespaces and programs of its own. Tests that move much and compare
// the counters of the ends run alone: a busy machine delivers packets so late that the counters show it.
const atOnce = 4

// TestMain runs the tests, and checks that all goroutines and descriptors that they have made have ended.
func TestMain(m *testing.M) {
	flag.Parse()
	own := false
	flag.Visit(func(f *flag.Flag) { own = own || f.Name == "test.parallel" })
	if !own {
		if err := flag.Set("test.parallel", fmt.Sprint(atOnce)); err != nil {
			panic(err)
		}
	}
	// A process that fuzzes goes on to listen for signals.
	child := os.Getenv(relayProcess)+os.Getenv(capableProcess)+flag.Lookup("test.fuzz").Value.String() != ""
	before := resourcesNow()
	code := m.Run()
	if code == 0 && !child && !before.restored() {
		code = 1
	}
	os.Exit(code)
}

// resources are those of the process.
type resources struct{ goroutines, descriptors int }

// kept is the number of descriptors that the runtime and the libraries open once and keep.
const kept = 8

func resourcesNow() resources {
	runtime.GC() // io.Copy keeps pipes until then
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	return resources{runtime.NumGoroutine(), len(files)}
}

// restored waits until there are no more resources than before, and says whether that is so.
func (r resources) restored() bool {
	var now resources
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if now = resourcesNow(); now.goroutines <= r.goroutines && now.descriptors <= r.descriptors+kept {
			return true
		}
	}
	fmt.Printf("%d goroutines and %d descriptors are left, want at most %d and %d\n",
		now.goroutines, now.descriptors, r.goroutines, r.descriptors+kept)
	_ = pprof.Lookup("goroutine").WriteTo(os.Stdout, 1)
	return false
}
