//go:build !linux

package local

import (
	"os"
	"syscall"
	"time"
)

// Elsewhere a process is alone: none of those that are used starts another.
func ownGroup() *syscall.SysProcAttr { return nil }

func killGroup(p *os.Process) error { return p.Kill() }

// restrain does nothing: other systems have no way to restrain another process.
func restrain(int, time.Duration) error { return nil }

// nameless returns a file that is in no folder.
func nameless() (*os.File, error) {
	f, err := os.CreateTemp("", "speech-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}
