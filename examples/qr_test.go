package examples_test

import (
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quicway/quicway/internal/test/nettest"
)

// qrLines are the lines of a QR code that a program has printed, each of two rows of modules.
type qrLines [][]rune

// printedQR returns the QR code in what a program has printed.
func printedQR(text string) (qr qrLines) {
	for line := range strings.Lines(text) {
		if strings.Trim(line, "█▀▄ \n") == "" && strings.ContainsAny(line, "█▀▄") {
			qr = append(qr, []rune(strings.TrimSuffix(line, "\n")))
		}
	}
	return qr
}

// size returns how many columns and lines the code has.
func (qr qrLines) size() (width, height int) {
	for _, line := range qr {
		width = max(width, len(line))
	}
	return width, len(qr)
}

// image is a photograph of a dark terminal with the code.
func (qr qrLines) image() image.Image {
	const module, margin = 6, 10 // pixels; modules
	width, height := qr.size()
	photo := image.NewGray(image.Rect(0, 0, (width+2*margin)*module, (2*height+2*margin)*module))
	light := func(column, row int) {
		for i := range module * module {
			photo.SetGray((margin+column)*module+i%module, (margin+row)*module+i/module, color.Gray{Y: 255})
		}
	}
	for y, line := range qr {
		for x, char := range line {
			if char == '█' || char == '▀' {
				light(x, 2*y)
			}
			if char == '█' || char == '▄' {
				light(x, 2*y+1)
			}
		}
	}
	return photo
}

// scan returns what the scanner of ZBar reads.
func (qr qrLines) scan(t *testing.T) string {
	t.Helper()
	scanner, err := exec.LookPath("zbarimg")
	if err != nil {
		nettest.Missing(t, "zbarimg is not installed")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "terminal.png"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := png.Encode(file, qr.image()); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), scanner, "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", file.Name()).Output()
	if err != nil {
		t.Fatalf("zbarimg: %v", err)
	}
	return strings.TrimSpace(string(out))
}
