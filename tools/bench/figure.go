package main

import (
	"fmt"
	"strconv"
)

// figure formats a number with at most three significant digits.
func figure(f float64) string {
	switch {
	case f >= 10_000:
		return group(int64(f/1000)) + " 000"
	case f >= 10 || f == 0:
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strconv.FormatFloat(f, 'f', 1, 64)
}

// group formats a number with a space between each three digits.
func group(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	return fmt.Sprintf("%s %03d", group(n/1000), n%1000)
}

// ratio formats a ratio.
func ratio(f float64) string { return fmt.Sprintf("%.2f", f) }
