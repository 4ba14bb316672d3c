//go:build unix

package main

import (
	"os"
	"syscall"
)

// lowPriority leaves a process a tenth of a core that others want as well: a
// crowd that signs in is hardly felt by the replies, and replies that take all
// there is do not keep everybody out, as the lowest priority (19) would.
const lowPriority = 10

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
