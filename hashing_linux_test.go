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
	policy                   int    // 5: it runs where nothing else does (sched(7))
	processors               string // that it may run on
	command                  string // with its arguments
}

// children returns the processes that pid has started, with the priority and the
// policy of the thread that gives way the least, and the processors of the one that
// may run on most.
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
				r.nice, r.policy = min(r.nice, thread.nice), min(r.policy, thread.policy)
			}
			if p := processors(filepath.Join(filepath.Dir(stat), "status")); len(p) > len(r.processors) {
				r.processors = p
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
	return relative{pid: number(before), parent: number(fields[1]), group: number(fields[2]), nice: number(fields[16]), policy: number(fields[38])}, fields[0] != "Z"
}

// processors reads from a file as proc_pid_status(5) has it on which processors a
// thread may run.
func processors(status string) string {
	text, _ := os.ReadFile(status)
	_, list, _ := strings.Cut(string(text), "Cpus_allowed_list:")
	list, _, _ = strings.Cut(strings.TrimSpace(list), "\n")
	return list
}

// hashing returns the processes that hash passwords for s: the calm one, and the
// one that helps out, as far as there are.
func hashing(t *testing.T, s *service) (calm, keen relative) {
	t.Helper()
	for _, child := range children(t, s.cmd.Process.Pid) {
		switch child.command {
		case "/proc/self/exe hash -calm 0":
			calm = child
		case "/proc/self/exe hash":
			keen = child
		case "": // it begins anew, or has just ended
		default:
			t.Fatalf("the service has the child %+v", child)
		}
	}
	return calm, keen
}

// calmly signs in until the calm process is at work that is not the one with this
// id, and returns it.
func calmly(t *testing.T, s *service, not int) (calm relative) {
	t.Helper()
	eventually(t, "a calm process is at work", func() bool {
		signIn(t, s)
		calm, _ = hashing(t, s)
		return calm.pid != 0 && calm.pid != not && calm.policy == 5
	})
	return calm
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
	first := calmly(t, s, 0)
	all := processors("/proc/self/status")
	want := relative{
		pid: first.pid, parent: s.cmd.Process.Pid, group: first.pid, nice: 10, policy: 5,
		processors: all[strings.LastIndexAny(all, ",-")+1:],
		command:    "/proc/self/exe hash -calm 0",
	}
	if first.pid == 0 || first != want {
		t.Errorf("got %+v, want %+v", first, want)
	}
	if environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", first.pid)); err != nil || len(environ) != 0 {
		t.Errorf("it is told of %q, %v", environ, err)
	}
	signIn(t, s)
	if again, _ := hashing(t, s); again.pid != first.pid {
		t.Errorf("process %d has followed process %d, which was good", again.pid, first.pid)
	}

	// Where it gets no time of any processor, another one does its work, which has a
	// share of all of them.
	if err := syscall.Kill(first.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	signIn(t, s)
	_, keen := hashing(t, s)
	want = relative{
		pid: keen.pid, parent: s.cmd.Process.Pid, group: keen.pid, nice: 10, processors: all,
		command: "/proc/self/exe hash",
	}
	if keen.pid == 0 || keen != want {
		t.Errorf("got %+v, want %+v", keen, want)
	}

	// It heeds no signal but ends with the service, however that ends.
	if err := syscall.Kill(keen.pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	signIn(t, s)
	if _, again := hashing(t, s); again.pid != keen.pid {
		t.Errorf("process %d has followed process %d, which was told to end", again.pid, keen.pid)
	}

	// One that dies costs nobody a login.
	for _, child := range []relative{first, keen} {
		if err := syscall.Kill(child.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	signIn(t, s)
	second := calmly(t, s, first.pid)
	s.kill()
	eventually(t, "the process ends with the service", func() bool {
		_, there := readStat(fmt.Sprintf("/proc/%d/stat", second.pid))
		return !there
	})
}
