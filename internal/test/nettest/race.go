//go:build race

package nettest

// RaceDetector reports whether the program is built with the race detector.
const RaceDetector = true
