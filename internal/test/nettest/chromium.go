package nettest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"time"
)

// RequireChromium is the environment variable that, if it is 1, makes tests fail instead of
// being skipped when there is no Chromium.
const RequireChromium = "QUICWAY_REQUIRE_CHROMIUM"

// Chromium returns the path of Chromium or Chrome. It skips the test if there is none. With
// [RequireChromium] the test fails.
func Chromium(tb TB) string {
	tb.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil && starts(path) {
			return path
		}
	}
	if os.Getenv(RequireChromium) == "1" {
		tb.Fatalf("%s=1, but there is no Chromium", RequireChromium)
	}
	tb.Skip("there is no Chromium")
	return ""
}

// DumpDOM loads a page in Chromium, with more of its flags, and returns the document as it is when
// the page is loaded. It fails the test if Chromium fails, or takes more than a minute.
func DumpDOM(tb TB, url string, flags ...string) string {
	tb.Helper()
	path := Chromium(tb)
	home, err := os.MkdirTemp("", "chromium")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = os.RemoveAll(home) })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	args := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--user-data-dir=" + home, "--enable-logging=stderr",
	}
	cmd := exec.CommandContext(ctx, path, append(append(args, flags...), "--dump-dom", url)...)
	cmd.Env = append(os.Environ(), "HOME="+home)
	cmd.WaitDelay = time.Second // its children may keep the pipes open
	var log bytes.Buffer
	cmd.Stderr = &log
	page, err := cmd.Output()
	if err != nil {
		tb.Fatalf("chromium: %v\n%s%s", err, page, &log)
	}
	return string(page)
}

// starts says whether a program starts. A stub that only names a package of snap does not.
func starts(path string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return exec.CommandContext(ctx, path, "--version").Run() == nil
}
