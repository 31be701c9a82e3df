package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/quicway/quicway/tools/peers/traffic"
)

// watcher is a program that finds the connections of QUIC in a capture, and their names.
type watcher struct {
	name string
	// command returns the command that reads a capture. If it does not print what it finds, it writes that
	// into the file out.
	command func(b *builder, capture, out string) ([]string, error)
	// line reads a line of what it finds: an ID of a connection, and a server name, if there is one.
	line func(line string) (connection, name string, ok bool)
}

// watchers are all of them, each in a file of its own.
var watchers = []watcher{
	{"monitor", monitorCommand, monitorLine},
	{"ndpi", ndpiCommand, ndpiLine},
	{"tshark", tsharkCommand, tsharkLine},
}

// found is what a watcher has found in a capture, and what that took.
type found struct {
	took, cpu          time.Duration
	memory             int64 // the most that has been resident, in bytes
	connections, names int
}

// report returns the figures in the form of go test -bench.
func (f *found) report(c *traffic.Content) string {
	percent := func(n int) float64 { return 100 * float64(n) / float64(c.Connections) }
	return fmt.Sprintf("%.3f s %.2f MB/s %.3f cpu-s %.2f MB %.1f %%-connections %.1f %%-names",
		f.took.Seconds(), float64(c.Bytes)/1e6/f.took.Seconds(), f.cpu.Seconds(), float64(f.memory)/1e6, percent(f.connections), percent(f.names))
}

// makeCapture makes a capture of some size in a new file.
func makeCapture(dir string, size int64) (file string, c *traffic.Content, err error) {
	f, err := os.Create(filepath.Join(dir, "capture.pcap"))
	if err != nil {
		return "", nil, err
	}
	c, err = traffic.Write(f, size)
	return f.Name(), c, errors.Join(err, f.Close())
}

// watch runs a watcher on a capture.
func (w *watcher) watch(b *builder, capture string) (f found, err error) {
	out := filepath.Join(b.dir, w.name+".out")
	command, err := w.command(b, capture, out)
	if err != nil {
		return f, err
	}
	file, err := os.Create(out)
	if err != nil {
		return f, err
	}
	var said said
	cmd := exec.CommandContext(b.ctx, command[0], command[1:]...)
	cmd.Stderr = &said
	if !strings.Contains(strings.Join(command, " "), out) {
		cmd.Stdout = file
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		return f, errors.Join(err, file.Close())
	}
	peak := followMemory(cmd.Process.Pid)
	err = cmd.Wait()
	f.took, f.memory = time.Since(start), peak()
	f.cpu = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err = errors.Join(err, file.Close()); err != nil {
		return f, fmt.Errorf("%w; it says: %s", err, said.String())
	}
	if file, err = os.Open(out); err != nil {
		return f, err
	}
	defer file.Close()
	f.connections, f.names, err = w.count(file)
	return f, err
}

// count counts the connections, and the names that connections of the capture have.
func (w *watcher) count(out io.Reader) (connections, names int, err error) {
	all, named := make(map[string]bool), make(map[string]bool)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		connection, name, ok := w.line(lines.Text())
		if !ok {
			continue
		}
		all[connection] = true
		if strings.HasSuffix(name, traffic.NameSuffix) {
			named[name] = true
		}
	}
	return len(all), len(named), lines.Err()
}

// followMemory looks at the most memory that a process has had (VmHWM), again and again until the function
// that it returns is called. What the kernel says after the end contains the memory of the program that
// has started it.
func followMemory(pid int) (end func() int64) {
	stop, peak := make(chan struct{}), make(chan int64)
	go func() {
		const every = 5 * time.Millisecond
		var most int64
		for tick := time.NewTicker(every); ; {
			most = max(most, memoryOf(pid, "VmHWM:"))
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				peak <- most
				return
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-peak
	}
}
