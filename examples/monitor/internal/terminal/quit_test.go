package terminal

import (
	"errors"
	"testing"

	tea "charm.land/bubbletea/v2"
)

// TestQuitAnswer checks that the view ends when the terminal has answered, and not before,
// unless the user insists.
func TestQuitAnswer(t *testing.T) {
	ends := func(m *model, message tea.Msg) bool {
		_, command := m.Update(message)
		if command == nil {
			return false
		}
		_, ok := command().(tea.QuitMsg)
		return ok
	}
	key := tea.KeyPressMsg{Code: 'q', Text: "q"}
	for _, second := range []tea.Msg{tea.CursorPositionMsg{}, key} {
		m := newModel(func(uint64) {})
		if ends(m, tea.CursorPositionMsg{}) || ends(m, drawnBefore{}) {
			t.Error("an answer alone ends the view")
		}
		if ends(m, key) || ends(m, quit{}) || ends(m, sourceEnded{errors.New("closed")}) {
			t.Error("the view ends without an answer")
		}
		if !ends(m, second) {
			t.Errorf("%T does not end the view", second)
		}
	}
}
