//go:build linux

package survival_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// patience is how long a test waits for what must happen.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	// Most of these tests wait most of the time. -parallel still has its say.
	if err := flag.Set("test.parallel", "4"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if path, err := program(); err == nil {
			os.RemoveAll(filepath.Dir(path)) //nolint:errcheck // what is left is in the system's folder for that
		}
		os.Exit(code)
	}))
}

// program builds the binary that the tests run.
var program = sync.OnceValues(func() (string, error) {
	folder, err := os.MkdirTemp("", "parley-survival-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(folder, "parley")
	out, err := exec.Command("go", "build", "-o", path, "parley").CombinedOutput()
	if err != nil {
		return path, fmt.Errorf("build parley: %w\n%s", err, out)
	}
	return path, nil
})

// A process is one run of the program.
type process struct {
	address string // host:port
	cmd     *exec.Cmd
	exited  chan struct{} // closed when it has; then cmd.ProcessState says how

	mu     sync.Mutex
	told   time.Time     // when it was signalled to end, or killed
	took   map[int64]int // how often it said that it took over a reply
	faults []string      // lines of its log that must not be
	recent []string      // the last lines of its log, but for those of requests
}

// startProcess runs the program with that environment and no other, until the
// test ends, and returns once it listens.
func startProcess(t *testing.T, environ []string) *process {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(path), exited: make(chan struct{}), took: make(map[int64]int)}
	p.cmd.Dir = t.TempDir() // without a .env
	p.cmd.Env = environ
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	output, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening := make(chan string, 1)
	go p.readLog(output, listening)
	t.Cleanup(func() { p.end(t) })
	select {
	case p.address = <-listening:
	case <-p.exited:
		t.Fatalf("parley ended as it began:\n%s", p.log())
	case <-time.After(patience):
		t.Fatalf("parley does not begin:\n%s", p.log())
	}
	return p
}

// readLog reads what the process logs until it has ended.
func (p *process) readLog(output io.Reader, listening chan<- string) {
	defer close(p.exited)
	lines := bufio.NewScanner(output)
	for lines.Scan() {
		var entry struct {
			Level, Msg, URL string
			Status          int
			MessageID       int64 `json:"message_id"`
		}
		line := bytes.Clone(lines.Bytes())
		told := json.Unmarshal(line, &entry) == nil
		if told && entry.Msg == "listening" {
			listening <- strings.TrimPrefix(entry.URL, "http://")
		}
		p.mu.Lock()
		if entry.Msg != "request" {
			p.recent = append(p.recent, string(line))
			p.recent = p.recent[max(0, len(p.recent)-30):]
		}
		if entry.Msg == "took a reply over" {
			p.took[entry.MessageID]++
		}
		if !told || entry.Level == "ERROR" && entry.Status != http.StatusServiceUnavailable {
			p.faults = append(p.faults, string(line))
		}
		p.mu.Unlock()
	}
	_ = p.cmd.Wait() // ProcessState says how
}

// log returns the last lines of the process's log.
func (p *process) log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.recent, "\n")
}

// takeovers returns how often the process took a reply over.
func (p *process) takeovers(messageID int64) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.took[messageID]
}

// toldAt returns when the process was told to end; zero if it was not.
func (p *process) toldAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told
}

// signal sends a signal. One that has ended does not hear it.
func (p *process) signal(s syscall.Signal) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if s == syscall.SIGKILL || s == syscall.SIGTERM {
		p.told = now
	}
	_ = p.cmd.Process.Signal(s)
	return now
}

// kill ends the process as kill -9 does, and returns when.
func (p *process) kill() time.Time {
	now := p.signal(syscall.SIGKILL)
	<-p.exited
	return now
}

// end kills the process if it is still there, and tells what it had to complain
// of.
func (p *process) end(t *testing.T) {
	p.kill()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.faults {
		t.Errorf("parley said: %s", line)
	}
	if t.Failed() {
		t.Logf("the last that parley on %s said:\n%s", p.address, strings.Join(p.recent, "\n"))
	}
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
