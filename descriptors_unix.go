//go:build unix

package main

import (
	"math"
	"syscall"
)

// maxDescriptors is how many files the process may have open at a time, 0 for
// any number. The runtime has raised it as far as it may be.
func maxDescriptors() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil || uint64(limit.Cur) > math.MaxInt32 { //nolint:unconvert // signed on FreeBSD
		return 0
	}
	return int(limit.Cur)
}
