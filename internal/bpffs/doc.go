// Package bpffs opens the directories on a BPF file system in which a process pins maps and links, so that
// they outlive the process. It is empty on other systems than Linux.
package bpffs
