package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// arch is a processor of virtual machines.
type arch struct {
	debian string // Debian's name
	suffix string // of the names of its kernel packages
	qemu   []string
	serial string // device of the console
	image  string // first part of the name of the kernel's file
}

var arches = map[string]arch{
	"amd64": {"amd64", "cloud-amd64", []string{"qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max"}, "ttyS0", "vmlinuz"},
	"arm64": {"arm64", "cloud-arm64", []string{"qemu-system-aarch64", "-M", "virt", "-accel", "tcg,thread=multi", "-cpu", "max,pauth-impdef=on"}, "ttyAMA0", "vmlinuz"},
	"s390x": {"s390x", "s390x", []string{"qemu-system-s390x", "-M", "s390-ccw-virtio", "-accel", "tcg,thread=multi", "-cpu", "max"}, "ttysclp0", "vmlinuz"},
}

// modules are the kernel modules that tests use and that are not built into Debian's kernels.
// The modules that these depend on are loaded as well.
var modules = []string{
	"veth", "nf_tables", "nft_chain_nat", "nft_ct", "nft_masq", "nft_nat", "nft_redir", "nft_reject_inet", "nft_fib_inet", "nft_limit", "nf_conntrack_netlink",
	"tun", "dummy", "bridge", "bonding", "8021q", "macvlan", "wireguard", "vxlan", "sch_ingress", "sch_netem", "sch_tbf", "cls_bpf",
}

// kernel is an unpacked kernel package.
type kernel struct {
	release string
	folder  string
}

// apt returns a command of apt-get or apt-cache for a processor. For another processor than this
// machine's, the package lists are in the cache folder.
func (a arch) apt(ctx context.Context, cache, tool string, args ...string) *exec.Cmd {
	host, _ := exec.CommandContext(ctx, "dpkg", "--print-architecture").Output()
	if strings.TrimSpace(string(host)) == a.debian {
		return exec.CommandContext(ctx, tool, args...)
	}
	dir := filepath.Join(cache, "apt-"+a.debian)
	own := []string{
		"-oAPT::Architecture=" + a.debian, "-oAPT::Architectures=" + a.debian,
		"-oDir::State::Lists=" + dir, "-oDir::State::status=/dev/null", "-oDir::Cache=" + dir,
	}
	return exec.CommandContext(ctx, tool, append(own, args...)...)
}

// fetchKernel downloads the newest kernel of a version, unless it is in the cache.
func (a arch) fetchKernel(ctx context.Context, cache, version string) (*kernel, error) {
	for _, dir := range []string{"partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(cache, "apt-"+a.debian, dir), 0o755); err != nil {
			return nil, err
		}
	}
	name, err := a.newest(ctx, cache, version)
	if err != nil {
		return nil, err
	}
	k := &kernel{release: strings.TrimPrefix(name, "linux-image-"), folder: filepath.Join(cache, name)}
	if _, err := os.Stat(k.folder); err == nil {
		return k, nil
	}
	unpacked, err := os.MkdirTemp(cache, "new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(unpacked)
	get := a.apt(ctx, cache, "apt-get", "download", "-qq", name)
	get.Dir = unpacked
	if err := loud(get); err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(unpacked, "*.deb"))
	if err != nil || len(files) != 1 {
		return nil, errors.Join(err, fmt.Errorf("apt-get download %s downloaded %d files, want 1", name, len(files)))
	}
	if err := loud(exec.CommandContext(ctx, "dpkg-deb", "-x", files[0], unpacked)); err != nil {
		return nil, err
	}
	if err := loud(exec.CommandContext(ctx, "depmod", "-b", unpacked, k.release)); err != nil {
		return nil, err
	}
	return k, os.Rename(unpacked, k.folder)
}

// newest returns the name of the newest kernel package of a version.
func (a arch) newest(ctx context.Context, cache, version string) (string, error) {
	pattern := fmt.Sprintf(`^linux-image-%s\.[0-9].*[0-9]-%s$`, regexp.QuoteMeta(version), a.suffix)
	names, err := a.search(ctx, cache, pattern)
	if err == nil && len(names) == 0 { // apt may have no package lists yet
		if err = loud(a.apt(ctx, cache, "apt-get", "update", "-qq")); err == nil {
			names, err = a.search(ctx, cache, pattern)
		}
	}
	if err != nil {
		return "", err
	}
	if len(names) == 0 {
		return "", fmt.Errorf("apt has no package %s", pattern)
	}
	return slices.MaxFunc(names, compareVersions), nil
}

func (a arch) search(ctx context.Context, cache, pattern string) (names []string, err error) {
	out, err := a.apt(ctx, cache, "apt-cache", "search", "--names-only", pattern).Output()
	if err != nil {
		return nil, fmt.Errorf("apt-cache search: %w", err)
	}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	return names, nil
}

var number = regexp.MustCompile(`[0-9]+`)

// compareVersions compares names by the numbers in them.
func compareVersions(a, b string) int {
	x, y := number.FindAllString(a, -1), number.FindAllString(b, -1)
	return slices.CompareFunc(x, y, func(m, n string) int {
		i, _ := strconv.Atoi(m)
		j, _ := strconv.Atoi(n)
		return cmp.Compare(i, j)
	})
}

// moduleFiles returns the files of the modules and of their dependencies, in the order of loading.
// Modules that are built in, or that the kernel lacks, have no files.
func (k *kernel) moduleFiles(ctx context.Context) (files []string) {
	for _, name := range modules {
		out, err := exec.CommandContext(ctx, "modprobe", "-d", k.folder, "-S", k.release, "--show-depends", name).Output()
		if err != nil {
			fmt.Printf("%s: has no module %s\n", k.release, name)
			continue
		}
		for line := range strings.Lines(string(out)) {
			word := strings.Fields(line) // insmod FILE [OPTION...]
			if len(word) >= 2 && word[0] == "insmod" && !slices.Contains(files, word[1]) {
				files = append(files, word[1])
			}
		}
	}
	return files
}

// loud runs a command. The error contains its output.
func loud(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
