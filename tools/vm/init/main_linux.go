// Command init is the init of a virtual machine that the command vm starts. It loads kernel
// modules, runs test binaries, prints their results, and powers the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/quicway/quicway/tools/vm/plan"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("init:", err)
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	text, err := os.ReadFile(plan.File)
	if err != nil {
		return err
	}
	var p plan.Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return err
	}
	for _, module := range p.Modules {
		if err := loadModule(module); err != nil {
			fmt.Printf("init: module %s: %v\n", filepath.Base(module), err)
		}
	}
	if err := raiseLoopback(); err != nil {
		fmt.Println("init:", err)
	}
	for _, test := range p.Tests {
		runTest(test)
	}
	return nil
}

// mountAll mounts the file systems that tests use, and makes /dev/fd.
func mountAll() error {
	for _, m := range []struct{ kind, dir string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}, {"bpf", "/sys/fs/bpf"},
	} {
		if err := os.MkdirAll(m.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	if err := os.Symlink("/proc/self/fd", "/dev/fd"); err != nil {
		return err
	}
	return os.MkdirAll("/run/netns", 0o755)
}

// raiseLoopback sets the loopback interface up, so that 127.0.0.1 and ::1 work.
func raiseLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set loopback up: %w", err)
	}
	return nil
}

func loadModule(path string) error {
	image, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := unix.InitModule(image, ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// runTest runs a test binary in its folder, and prints the result.
func runTest(test plan.Test) {
	begin := time.Now()
	cmd := exec.Command(test.Binary, test.Args...)
	cmd.Dir = filepath.Dir(test.Binary)
	cmd.Env = append(os.Environ(), "HOME=/tmp", "PATH=/", "QUICWAY_REQUIRE_KERNEL=1", "QUICWAY_REQUIRE_MODULES=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	result := "passed"
	if err := cmd.Run(); err != nil {
		result = err.Error()
	}
	fmt.Printf("%s%s %.0fs %s\n", plan.Result, test.Package, time.Since(begin).Seconds(), result)
}
