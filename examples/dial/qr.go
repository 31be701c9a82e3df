package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/mdp/qrterminal/v3"
	"golang.org/x/term"
)

// printQR prints a text as a QR code, two modules above each other in a character. It says so
// if the terminal is too small for the code.
func printQR(out *os.File, text string) {
	var code bytes.Buffer
	qrterminal.GenerateWithConfig(text, qrterminal.Config{
		Level:      qrterminal.L,
		Writer:     &code,
		HalfBlocks: true,
		BlackChar:  qrterminal.BLACK_BLACK, WhiteBlackChar: qrterminal.WHITE_BLACK,
		WhiteChar: qrterminal.WHITE_WHITE, BlackWhiteChar: qrterminal.BLACK_WHITE,
		QuietZone: 2,
	})
	fmt.Fprintln(out, code.String())
	first, _, _ := strings.Cut(code.String(), "\n")
	columns, rows := utf8.RuneCountInString(first), strings.Count(code.String(), "\n")
	width, height, err := term.GetSize(int(out.Fd()))
	if err == nil && (width < columns || height < rows) {
		fmt.Fprintf(out, "The code has %d columns and %d rows, the terminal %d and %d: make it larger, or its letters smaller.\n\n",
			columns, rows, width, height)
	}
}
