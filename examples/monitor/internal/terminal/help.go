package terminal

import "strings"

// helpText is shown for the key "?".
const helpText = `Keys of the list

  ↑ ↓  k j           select a connection
  PgUp PgDn          a page up or down
  Home End  g G      the first or the last connection
  ← →  h l  < >      sort by another column; one that did not fit appears
  r                  reverse the order
  /                  filter: all words must be in the names, addresses, versions
                     or states (open, silent, ended, moved); Esc removes it
  Enter              details of the connection; Esc returns
  p Space            pause, and go on
  q Ctrl-C           quit

Signs

  ●                  the connection has just changed its path
  ×                  the connection has ended, or the monitor has removed it;
                     its row disappears soon
  faint              the connection has ended, or there is no packet for 30 s
  SURE               how sure it is that the connection is QUIC
  TREND              the latest round trips
  UP/s DN/s          bytes a second from the client, and from the server

Any key closes this page.`

// helpLines returns the lines of the help.
func (m *model) helpLines() []string { return strings.Split(helpText, "\n") }
