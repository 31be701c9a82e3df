package terminal

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
)

// maxHeld is the limit of lines that a Log holds back.
const maxHeld = 100

// Log is the standard error stream of a program that has a view. While the view is shown
// it holds back what is written, since that would damage the screen, and the view shows the
// latest line. The zero value is ready for use. Its methods may be called concurrently.
type Log struct {
	mu      sync.Mutex // guards the following
	holding bool
	held    []string  // the latest lines
	out     io.Writer // nil: os.Stderr
}

// Write writes p, or holds it back while a view is shown.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.holding {
		return l.writer().Write(p)
	}
	for line := range bytes.Lines(p) {
		if len(l.held) >= maxHeld {
			l.held = l.held[1:]
		}
		l.held = append(l.held, string(line))
	}
	return len(p), nil
}

func (l *Log) writer() io.Writer {
	if l.out == nil {
		return os.Stderr
	}
	return l.out
}

// hold begins to hold back what is written.
func (l *Log) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = true
}

// release writes what was held back, and ends holding it back.
func (l *Log) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = false
	for _, line := range l.held {
		io.WriteString(l.writer(), line)
	}
	l.held = nil
}

// latest returns the latest line that was held back, or nothing.
func (l *Log) latest() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.held) == 0 {
		return ""
	}
	return clean(strings.TrimSpace(l.held[len(l.held)-1]))
}
