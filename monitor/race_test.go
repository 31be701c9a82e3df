//go:build race

package monitor

// raceDetector reports whether the tests run with the race detector.
const raceDetector = true
