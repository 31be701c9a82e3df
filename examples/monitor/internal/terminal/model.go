package terminal

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// The smallest screen on which the view is complete. Smaller ones show less.
const (
	fullWidth  = 80
	fullHeight = 24
)

// sourceEnded says that the source has ended, or has failed.
type sourceEnded struct{ err error }

// model is the state of the view.
type model struct {
	width, height int
	latest        *snapshot // also while paused
	shown         *snapshot
	paused        bool
	ended         bool // the source has ended
	quitting      bool
	list          list
	details       *details // nil: the list is shown
	help          bool
	follow        func(number uint64) // asks for the details of a connection, or of none
}

func newModel(follow func(number uint64)) *model {
	empty := &snapshot{}
	return &model{width: fullWidth, height: fullHeight, latest: empty, shown: empty, list: newList(), follow: follow}
}

// Init implements [tea.Model].
func (m *model) Init() tea.Cmd { return nil }

// Update implements [tea.Model].
func (m *model) Update(message tea.Msg) (tea.Model, tea.Cmd) {
	switch message := message.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = message.Width, message.Height
	case *snapshot:
		m.take(message)
	case sourceEnded:
		m.ended = true
		if message.err != nil {
			return m, m.quit()
		}
	case quit:
		return m, m.quit()
	case tea.CursorPositionMsg:
		if m.quitting {
			return m, tea.Quit
		}
	case tea.KeyPressMsg:
		return m, m.key(message)
	case tea.PasteMsg:
		if m.list.editing {
			m.list.typed(message.Content)
		}
	}
	return m, nil
}

// take takes a snapshot. While the view is paused only the details, which may have been
// asked for since, are shown.
func (m *model) take(s *snapshot) {
	m.latest = s
	if m.details != nil {
		m.details.take(s, m.paused)
	}
	if !m.paused {
		m.shown = s
		m.list.arrange(s.rows)
	}
}

// View implements [tea.Model].
func (m *model) View() tea.View {
	var lines []string
	switch {
	case m.help:
		lines = m.helpLines()
	case m.details != nil:
		lines = m.detailsLines()
	default:
		lines = m.listLines()
	}
	for i := range lines {
		lines[i] = fit(lines[i], m.width)
	}
	view := tea.NewView(strings.Join(lines[:min(len(lines), max(m.height, 0))], "\n"))
	view.AltScreen = true
	return view
}
