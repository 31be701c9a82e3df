package terminal

import tea "charm.land/bubbletea/v2"

// key handles a key.
func (m *model) key(message tea.KeyPressMsg) tea.Cmd {
	if m.quitting { // the user does not want to wait
		return tea.Quit
	}
	key := message.String()
	switch key {
	case "ctrl+c":
		return m.quit()
	case "ctrl+z":
		return tea.Suspend
	}
	if m.list.editing {
		m.list.edit(key, message.Text)
		return nil
	}
	switch {
	case key == "q":
		return m.quit()
	case m.help: // any other key closes the help
		m.help = false
	case key == "?":
		m.help = true
	case key == "p" || key == "space":
		m.pause()
	case m.details != nil:
		m.detailsKey(key)
	default:
		m.listKey(key)
	}
	return nil
}

// pause begins or ends a pause.
func (m *model) pause() {
	m.paused = !m.paused
	m.take(m.latest)
}

// listKey handles a key while the list is shown.
func (m *model) listKey(key string) {
	switch key {
	case "/":
		m.list.editing = true
	case "esc", "alt+esc":
		m.list.setFilter("")
	case "enter":
		if r := m.list.selectedRow(); r != nil {
			m.details = newDetails(r)
			m.follow(r.number)
		}
	case "left", "h", "<":
		m.list.sortBy(-1)
	case "right", "l", ">":
		m.list.sortBy(1)
	case "r":
		m.list.reverse()
	default:
		m.list.move(key, m.rowsVisible())
	}
}

// detailsKey handles a key while the details of a connection are shown.
func (m *model) detailsKey(key string) {
	switch key {
	case "esc", "alt+esc", "enter", "backspace", "left", "h":
		m.details = nil
		m.follow(0)
	default:
		m.details.scroll.move(key, m.height-detailsFrame)
	}
}

// scroll is a position in lines of which only some are visible.
type scroll struct{ top, lines int }

// move moves the position by a key of the keyboard.
func (s *scroll) move(key string, page int) {
	s.top = step(key, s.top, page, s.lines)
	s.clamp(page)
}

// clamp moves the position to where a page is full.
func (s *scroll) clamp(page int) { s.top = max(min(s.top, s.lines-page), 0) }

// step returns the position to which a key leads from another one, of n positions.
func step(key string, at, page, n int) int {
	switch key {
	case "up", "k":
		at--
	case "down", "j":
		at++
	case "pgup", "ctrl+b":
		at -= max(page, 1)
	case "pgdown", "ctrl+f":
		at += max(page, 1)
	case "home", "g":
		at = 0
	case "end", "G":
		at = n - 1
	}
	return max(min(at, n-1), 0)
}
