package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"parley/models"
)

// A relative is what Linux tells of a process.
type relative struct {
	pid, parent, group, nice int
	command                  string // with its arguments
}

// children returns the processes that pid has started, with the priority of
// the least nice of their threads.
func children(tb testing.TB, pid int) (all []relative) {
	tb.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		tb.Fatal(err)
	}
	for _, stat := range stats {
		r, ok := readStat(stat)
		if !ok || r.parent != pid {
			continue
		}
		threads, err := filepath.Glob(filepath.Join(filepath.Dir(stat), "task", "*", "stat"))
		if err != nil {
			tb.Fatal(err)
		}
		for _, stat := range threads {
			if thread, ok := readStat(stat); ok {
				r.nice = min(r.nice, thread.nice)
			}
		}
		command, _ := os.ReadFile(filepath.Join(filepath.Dir(stat), "cmdline"))
		r.command = strings.TrimSuffix(strings.ReplaceAll(string(command), "\x00", " "), " ")
		all = append(all, r)
	}
	return all
}

// readStat reads a file as proc_pid_stat(5) has it. The process may be gone, or
// one that has ended.
func readStat(path string) (relative, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return relative{}, false
	}
	before, after, _ := strings.Cut(string(text), " (")
	fields := strings.Fields(after[strings.LastIndex(after, ") ")+2:])
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	return relative{pid: number(before), parent: number(fields[1]), group: number(fields[2]), nice: number(fields[16])}, fields[0] != "Z"
}

// hashing returns the process that hashes passwords for s.
func hashing(t *testing.T, s *service) relative {
	t.Helper()
	all := children(t, s.cmd.Process.Pid)
	if len(all) != 1 {
		t.Fatalf("the service has the children %+v, want one", all)
	}
	return all[0]
}

func signIn(t *testing.T, s *service) {
	t.Helper()
	nobody.ask(t, s, "POST", "/api/v1/auth/login", credentials).want(t, 200)
	nobody.ask(t, s, "POST", "/api/v1/auth/login", strings.Replace(credentials, "battery", "barley", 1)).want(t, 401)
}

func TestPasswordsAreHashedBesideTheService(t *testing.T) {
	t.Parallel()
	s := start(t, with(database(t, models.SQLite), "PASSWORD_WORKERS=1", "LIMIT_LOGIN_ACCOUNT_NETWORK=off")...)
	if got := children(t, s.cmd.Process.Pid); len(got) != 0 {
		t.Errorf("before anybody comes the service has the children %+v", got)
	}
	signUp(t, s)
	first := hashing(t, s)
	want := relative{pid: first.pid, parent: s.cmd.Process.Pid, group: first.pid, nice: 10, command: "/proc/self/exe hash"}
	if first != want {
		t.Errorf("got %+v, want %+v", first, want)
	}
	if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", first.pid)); err != nil || len(environ) != 0 {
		t.Errorf("it is told of %q, %v", environ, err)
	}
	signIn(t, s)
	if again := hashing(t, s); again.pid != first.pid {
		t.Errorf("process %d has followed process %d, which was good", again.pid, first.pid)
	}

	// One that dies costs nobody a login.
	if err := syscall.Kill(first.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	signIn(t, s)
	second := hashing(t, s)
	if second.pid == first.pid {
		t.Error("the process that was killed is still there")
	}

	// It heeds no signal but ends with the service, however that ends.
	if err := syscall.Kill(second.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	signIn(t, s)
	if third := hashing(t, s); third.pid != second.pid {
		t.Errorf("process %d has followed process %d, which was told to end", third.pid, second.pid)
	}
	s.kill()
	eventually(t, "the process ends with the service", func() bool {
		_, there := readStat(fmt.Sprintf("/proc/%d/stat", second.pid))
		return !there
	})
}
