package main

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// TestFullDiskEnds checks that a capture that goes on ends when what it says cannot be written.
func TestFullDiskEnds(t *testing.T) {
	sample, err := os.ReadFile("testdata/sample.pcap")
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "capture")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	capture, err := os.OpenFile(name, os.O_RDWR, 0) // does not wait for the reader, and stays open
	if err != nil {
		t.Fatal(err)
	}
	defer capture.Close()
	go func() { _, _ = capture.Write(sample) }() // the reader may have left before the end
	ran := make(chan error, 1)
	go func() { ran <- run(t.Context(), new(full), "", "capture", []string{name}, "json", "", nil) }()
	select {
	case err := <-ran:
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("got %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("the capture goes on")
	}
}
