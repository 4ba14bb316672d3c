//go:build unix

package main

import (
	"io/fs"
	"syscall"
	"testing"
)

// owner is the user and the group that a file belongs to.
func owner(t *testing.T, info fs.FileInfo) [2]uint32 {
	t.Helper()
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		t.Fatalf("%s has no owner", info.Name())
	}
	return [2]uint32{stat.Uid, stat.Gid}
}
