package local

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ownGroup has a process lead a group of its own, and die with us.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

func killGroup(p *os.Process) error {
	if err := syscall.Kill(-p.Pid, syscall.SIGKILL); err != nil {
		return os.ErrProcessDone
	}
	return nil
}

// lowPriority lets the replies go first.
const lowPriority = 10

// restrain sets what a process may use: memory, time of a processor, few files,
// none that is large, and no dump of what it knows.
func restrain(pid int, cpu time.Duration) error {
	_ = unix.Setpriority(unix.PRIO_PROCESS, pid, lowPriority) // it runs all the same
	seconds := uint64(cpu/time.Second) + 1
	for _, limit := range []struct {
		resource int
		most     uint64
	}{
		{unix.RLIMIT_AS, maxMemory},
		{unix.RLIMIT_CPU, seconds},
		{unix.RLIMIT_FSIZE, maxFile},
		{unix.RLIMIT_NOFILE, 64},
		{unix.RLIMIT_CORE, 0},
	} {
		err := unix.Prlimit(pid, limit.resource, &unix.Rlimit{Cur: limit.most, Max: limit.most}, nil)
		if err != nil && err != unix.ESRCH { // ended already
			return err
		}
	}
	return nil
}

// nameless returns a file in memory.
func nameless() (*os.File, error) {
	fd, err := unix.MemfdCreate("speech", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "speech"), nil
}
