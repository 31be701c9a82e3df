package terminal

import (
	"time"

	tea "charm.land/bubbletea/v2"
)

// The times of the end of the view.
const (
	drawn    = 2 * time.Second / framesPerSecond // until what was asked for before has been written
	answered = 500 * time.Millisecond            // until a terminal that does not answer is not waited for
)

// quit asks for the end of the view.
type quit struct{}

// quit ends the view, once. Bubble Tea asks the terminal at the
// beginning what it supports. An answer that comes after the end would be read by the shell,
// and be shown. So the view asks for the cursor's position, and waits for the answer: the
// terminal has given those to earlier questions before.
func (m *model) quit() tea.Cmd {
	if m.quitting {
		return nil
	}
	m.quitting = true
	return tea.Sequence(
		tea.Tick(drawn, func(time.Time) tea.Msg { return drawnBefore{} }),
		tea.RequestCursorPosition,
		tea.Tick(answered, func(time.Time) tea.Msg { return tea.QuitMsg{} }),
	)
}

// drawnBefore is a message that nothing depends on.
type drawnBefore struct{}
