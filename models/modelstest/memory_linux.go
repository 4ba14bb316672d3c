package modelstest

import (
	"os"
	"syscall"
)

// enoughMemory is what must be free in a file system in memory for it to be
// used, in bytes. All tests together need a quarter of it.
const enoughMemory = 4 << 30

// temporary is the folder for what need not survive: one in memory where there
// is one. Databases sync what they write, and on a busy disk some of that takes
// longer than a statement may.
func temporary() string {
	const memory = "/dev/shm"
	var fs syscall.Statfs_t
	if err := syscall.Statfs(memory, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < enoughMemory {
		return os.TempDir()
	}
	return memory
}
