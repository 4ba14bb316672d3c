package main

import (
	"os"
	"strconv"

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
func runIdle(number int) {
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
	// Both are a thread's. A thread that is started later has them from the one that
	// starts it.
	threads, _ := os.ReadDir("/proc/self/task") // none: there is no /proc
	for _, thread := range threads {
		id, _ := strconv.Atoi(thread.Name())
		idle := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}
		_ = unix.SchedSetAttr(id, &idle, 0)
		_ = unix.SchedSetaffinity(id, &one)
	}
}
