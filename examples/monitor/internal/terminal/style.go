package terminal

import "github.com/charmbracelet/x/ansi"

// The styles. Each differs from the others without colour as well: Bubble Tea leaves out
// colours if NO_COLOR is set or the terminal has none.
var (
	plain     = ansi.NewStyle()
	strong    = plain.Bold()
	faint     = plain.Faint()
	heading   = plain.Bold().Underline(true)
	selection = plain.Reverse(true)
	movedRow  = plain.Bold().ForegroundColor(ansi.Yellow)
	warning   = plain.Bold().ForegroundColor(ansi.Red)
)
