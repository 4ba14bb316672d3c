//go:build unix

package main

import (
	"os"
	"syscall"
)

// lowPriority is the lowest: such a process gets what others leave, and a
// hundredth of a core where they leave nothing. Replies do not notice a crowd
// that signs in; on a machine that they fill, the crowd is told to come back.
const lowPriority = 19

// giveWay lowers the priority of this process, if it leads a group of its own.
// On Linux a priority is a thread's; that of the group reaches all of them. Where
// it is not allowed the process is as important as others.
func giveWay() {
	if syscall.Getpgrp() == os.Getpid() {
		syscall.Setpriority(syscall.PRIO_PGRP, 0, lowPriority) //nolint:errcheck // see above
	}
}

// ownGroup has a process lead a group of its own.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
