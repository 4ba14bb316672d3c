package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/models"
	"parley/models/modelstest"
)

// These tests meet the program as an operator does: a binary, an environment,
// signals, and what it says on its streams.

// patience is how long anything may take that is waited for. It is long: a test
// that fails by it is one that would wait for ever.
const patience = time.Minute

// programs is where the tests' binaries are, until the last test is done.
var programs string

func TestMain(m *testing.M) {
	var err error
	programs, err = os.MkdirTemp("", "parley-programs-")
	if err != nil {
		panic(err)
	}
	defer func() { _ = os.RemoveAll(programs) }()
	m.Run()
}

// parley builds the program, once, and returns its file. The race detector is
// in it if it is in the tests.
func parley(tb testing.TB) string {
	tb.Helper()
	file, err := buildOnce()
	if err != nil {
		tb.Fatal(err)
	}
	return file
}

var buildOnce = sync.OnceValues(func() (string, error) {
	flags := []string{"-buildvcs=false"}
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		flags = append(flags, "-race")
	}
	return build("parley", ".", flags...)
})

// quickExit keeps a program with the race detector from waiting for a second at
// its end.
const quickExit = "GORACE=atexit_sleep_ms=0"

// build makes a program of a package, or of a file.
func build(name, source string, flags ...string) (string, error) {
	file := filepath.Join(programs, name)
	args := append([]string{"build", "-o", file}, flags...)
	output, err := exec.Command("go", append(args, source)...).CombinedOutput()
	if err != nil {
		return "", errors.Join(err, errors.New(string(output)))
	}
	return file, nil
}

// ended is how a program ended.
type ended struct {
	Code           int
	Stdout, Stderr string
}

// run runs the program to its end, with no other settings.
func run(tb testing.TB, settings []string, args ...string) ended {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, parley(tb), args...)
	cmd.Dir = tb.TempDir()
	cmd.Env = append([]string{quickExit}, settings...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		tb.Fatal(err)
	}
	return ended{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// A service is a program that serves.
type service struct {
	url  string
	web  *http.Client // asks it; nil: client does
	seen string       // where its metrics are, with METRICS_ADDR
	cmd  *exec.Cmd
	done chan struct{} // closed when the process has ended, and log is whole
	log  []string
}

// start starts the program with the settings and some that suit a test, and
// returns when it listens. The test's end is its end too.
func start(tb testing.TB, settings ...string) *service {
	tb.Helper()
	return startProgram(tb, parley(tb), append([]string{
		"PORT=0",
		"LOG_FORMAT=json",
		"PASSWORD_MEMORY_KIB=64",
		"PASSWORD_TIME=1",
	}, settings...))
}

func startProgram(tb testing.TB, file string, environ []string, args ...string) *service {
	tb.Helper()
	cmd := exec.Command(file, args...)
	cmd.Dir = tb.TempDir()
	cmd.Env = append([]string{quickExit}, environ...)
	return startCommand(tb, cmd)
}

// startCommand starts cmd, which serves, as start does.
func startCommand(tb testing.TB, cmd *exec.Cmd) *service {
	tb.Helper()
	s := &service{cmd: cmd, done: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		tb.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	listening := make(chan string, 1)
	go func() {
		defer close(s.done)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.log = append(s.log, lines.Text())
			var line struct{ Msg, URL string }
			if json.Unmarshal(lines.Bytes(), &line) != nil {
				continue
			}
			switch line.Msg {
			case "metrics are exposed":
				s.seen = line.URL
			case "listening":
				listening <- line.URL
			}
		}
		_ = s.cmd.Wait() // the exit code says it too
	}()
	tb.Cleanup(func() {
		s.kill()
		s.review(tb)
	})
	select {
	case s.url = <-listening:
	case <-s.done:
		tb.Fatalf("it does not start: %v", s.cmd.ProcessState)
	case <-time.After(patience):
		tb.Fatal("it does not listen")
	}
	return s
}

// kill ends the process by force, if it runs, and waits for its end.
func (s *service) kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// signal asks the process for something.
func (s *service) signal(tb testing.TB, signal os.Signal) {
	tb.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		tb.Fatal(err)
	}
}

// exitCode waits for the end of the process.
func (s *service) exitCode(tb testing.TB) int {
	tb.Helper()
	select {
	case <-s.done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		tb.Fatal("it does not end")
		return 0
	}
}

// review looks through the log of a process that has ended: a panic and a race
// are no JSON.
func (s *service) review(tb testing.TB) {
	tb.Helper()
	if slices.ContainsFunc(s.log, func(line string) bool { return !json.Valid([]byte(line)) }) {
		tb.Error("its log is not all JSON")
	}
	if tb.Failed() {
		tb.Logf("the log of %s:\n%s", s.url, strings.Join(s.log, "\n"))
	}
}

// onBoth runs test as a parallel subtest on either database. What it is given
// are settings that several replicas can share.
func onBoth(t *testing.T, test func(t *testing.T, settings []string)) {
	t.Helper()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			test(t, database(t, dialect))
		})
	}
}

// database returns the settings of a private, migrated database, and with
// PostgreSQL those of the keys, which the program does not make there.
func database(tb testing.TB, dialect string) []string {
	tb.Helper()
	return withKeys(tb, dialect, modelstest.URL(tb, dialect))
}

func withKeys(tb testing.TB, dialect, url string) []string {
	tb.Helper()
	settings := []string{"DATABASE_URL=" + url}
	if dialect == models.Postgres {
		keys := run(tb, nil, "keys", "new")
		if keys.Code != 0 {
			tb.Fatalf("keys new: got %+v", keys)
		}
		settings = append(settings, "JWT_KEYS="+keys.Stdout)
	}
	return settings
}

// with returns the settings with some more, and leaves them as they are.
func with(settings []string, more ...string) []string {
	return slices.Concat(settings, more)
}

// eventually asks until the answer is yes.
func eventually(tb testing.TB, what string, ask func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(patience); !ask(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("never: %s", what)
		}
	}
}
