package main

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// hasIdleClass says that runIdle does something.
const hasIdleClass = true

// runIdle has this process run on one processor and only where that has nothing
// else to do (SCHED_IDLE, sched(7)). Processes of different numbers choose different
// ones, as far as there are any, from the last one down. Where it is not allowed
// the process goes on as it is.
//
// Both are needed. Of a process that is moved from one processor to the other
// replies notice as much as of one at the lowest of other priorities.
//
// Both are a thread's, and the process has several by now: the one that got them
// begins the program anew, and passes them on.
func runIdle(number int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if has, err := unix.SchedGetAttr(0, 0); err != nil || has.Policy == unix.SCHED_IDLE {
		return
	}
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err == nil {
		at := allowed.Count() - 1 - number%allowed.Count()
		for cpu := range len(allowed) * 64 {
			if allowed.IsSet(cpu) {
				if at == 0 {
					one.Set(cpu)
				}
				at--
			}
		}
	}
	idle := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
	if unix.SchedSetaffinity(0, &one) == nil && unix.SchedSetAttr(0, &idle, 0) == nil {
		_ = unix.Exec(os.Args[0], os.Args, environment())
	}
}
