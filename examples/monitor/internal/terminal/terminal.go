// Package terminal shows the connections of a monitor live in a terminal.
//
// A feed copies what the monitor knows into snapshots, at a bounded rate. A model takes
// snapshots and keys, and renders only the rows that are visible. The model knows neither
// the monitor nor the terminal.
//
// Bubble Tea draws: its model is a value that takes messages and returns text, which a
// test compares without a terminal, and its renderer writes only the cells that change.
package terminal

import (
	"context"
	"errors"
	"os"
	"sync"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/term"

	"github.com/quicway/quicway/monitor"
)

// framesPerSecond bounds how often the screen is drawn.
const framesPerSecond = 20

// Usable reports whether a view can be shown: in and out are terminals, and the terminal
// (the environment variable TERM) can move its cursor.
func Usable(in, out *os.File) bool {
	if kind := os.Getenv("TERM"); kind == "" || kind == "dumb" {
		return false
	}
	return term.IsTerminal(int(in.Fd())) && term.IsTerminal(int(out.Fd()))
}

// Run runs a monitor and shows its connections, until the user quits, ctx is done, or the
// source fails, whose error it returns. If the source ends without an error the view stays.
// It holds back what is written to log until the end.
func Run(ctx context.Context, m *monitor.Monitor, in, out *os.File, log *Log) error {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	f := newFeed(m, log)
	program := tea.NewProgram(newModel(f.follow), tea.WithInput(in), tea.WithOutput(out),
		tea.WithEnvironment(environment()), tea.WithoutSignalHandler(), tea.WithFPS(framesPerSecond))
	log.hold()
	defer log.release()

	var failed error
	var all sync.WaitGroup
	f.listen(running, &all) // before the monitor runs, to get all events
	all.Go(func() {
		failed = m.Run(running)
		program.Send(sourceEnded{failed})
	})
	all.Go(func() { f.run(running, func(s *snapshot) { program.Send(s) }) })
	stop := context.AfterFunc(running, func() { program.Send(quit{}) })
	defer stop()

	_, err := program.Run()
	cancel()
	all.Wait()
	if errors.Is(failed, context.Canceled) {
		failed = nil // the user has quit
	}
	return errors.Join(failed, err)
}

// environment returns the environment for Bubble Tea, which knows NO_COLOR as a truth value
// only. Any value but an empty one is meant (https://no-color.org).
func environment() []string {
	all := os.Environ()
	if os.Getenv("NO_COLOR") != "" {
		all = append(all, "NO_COLOR=1")
	}
	return all
}
