package local

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A task is a program to be run once.
type task struct {
	path string
	args []string
	cpu  time.Duration // how long it may compute
	// stdin and stdout are files that the process gets; they are closed here once
	// it has them. nil: nothing is read, and what is written is dropped.
	stdin, stdout *os.File
	files         []*os.File // further ones, from number 3 on, which stay open here
}

const (
	// maxMemory bounds the memory that a process maps. The model of pocketsphinx
	// takes a tenth of it.
	maxMemory = 1 << 30
	// maxFile bounds a file that a process writes: what flite says of one
	// sentence.
	maxFile = 64 << 20
	// maxOutput bounds what is kept of a process' output.
	maxOutput = 64 << 10
)

// A process is a task that runs.
type process struct {
	ended chan struct{}
	err   error // of its end; read after ended
}

// start starts a process that leads a group of its own, in which nothing is left
// when ctx ends, or when this program does. Whoever started it has to wait for it.
func start(ctx context.Context, t task) (*process, error) {
	p := &process{ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Linux ends the process with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		cmd := t.command(ctx)
		err := cmd.Start()
		for _, f := range []*os.File{t.stdin, t.stdout} {
			if f != nil {
				_ = f.Close()
			}
		}
		if err == nil {
			// What is hostile comes by a pipe that nobody has written to yet.
			if err = restrain(cmd.Process.Pid, t.cpu); err != nil {
				_ = cmd.Cancel()
				_ = cmd.Wait()
			}
		}
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (t task) command(ctx context.Context) *exec.Cmd {
	cmd := exec.CommandContext(ctx, t.path, t.args...) //nolint:gosec // nothing of it is a stranger's
	cmd.Env = []string{"LC_ALL=C.UTF-8"}               // none of our secrets
	cmd.Dir = "/"
	cmd.ExtraFiles = t.files
	if t.stdin != nil {
		cmd.Stdin = t.stdin
	}
	if t.stdout != nil {
		cmd.Stdout = t.stdout
	}
	cmd.SysProcAttr = ownGroup()
	cmd.Cancel = func() error { return killGroup(cmd.Process) }
	return cmd
}

// wait returns when the process has ended, and how.
func (p *process) wait() error {
	<-p.ended
	return p.err
}

// died reports whether err is of a process that was killed, and did not end by
// itself.
func died(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && !exit.Exited()
}

// ending is what a caller is told of a process that ended badly: what it died of
// is most likely a limit, and it would die of it again.
func ending(err error, failed string) error {
	if died(err) {
		return status.Error(codes.OutOfRange, "a process had to use more than it may")
	}
	return status.Error(codes.Internal, failed)
}

// run runs a task to its end and returns what it writes, which is not much, when
// it is given input.
func (v *Voice) run(ctx context.Context, t task, input []byte) ([]byte, error) {
	in, err := feed(&t)
	if err != nil {
		return nil, err
	}
	out, err := drain(&t)
	if err != nil {
		_, _ = in.Close(), t.stdin.Close()
		return nil, err
	}
	defer closing(out)
	p, err := start(ctx, t)
	if err != nil {
		_ = in.Close()
		return nil, err
	}
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = in.Write(input) // a process that does not read it says why
		_ = in.Close()
	}()
	text, _ := io.ReadAll(io.LimitReader(out, maxOutput)) // ends with the process
	_ = out.Close()
	err = p.wait()
	<-written
	return text, err
}

// closing closes a pipe or a file that nothing was kept in: how that goes says
// nothing.
func closing(f *os.File) { _ = f.Close() }

// feed gives a task a pipe to read from, and returns its other end.
func feed(t *task) (*os.File, error) {
	r, w, err := os.Pipe()
	t.stdin = r
	return w, err
}

// drain gives a task a pipe to write to, and returns its other end.
func drain(t *task) (*os.File, error) {
	r, w, err := os.Pipe()
	t.stdout = w
	return r, err
}
