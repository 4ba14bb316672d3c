package main

import (
	"context"
	"encoding/gob"
	"errors"
	"flag"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"time"

	"parley/auth"
)

// hashingTimeout is how long one hash may take before its process is taken for
// stuck: longer than the dearest that package auth takes needs.
const hashingTimeout = time.Minute

// hashingCalmly is how long a password waits for what its hash can be computed in
// between: less than a person notices.
const hashingCalmly = 300 * time.Millisecond

// A hasher computes one hash at a time, in processes of a lower priority than
// this one, which are started when the first hash is wanted and end by themselves
// when this process does.
//
// A goroutine would not do. It holds one of the few places in which goroutines
// run for as long as a hash takes, on a thread of lower priority even longer,
// and one hash is as much garbage to collect as hundreds of replies.
//
// One process runs only where a processor has nothing else to do, and on one
// processor, so that no reply meets it anywhere else. Where replies take all there
// is it would never be done: then another one, which has its share, does the job.
type hasher struct {
	calm chan *worker // while it has no job; nil: there is no such priority
	keen *worker
	log  *slog.Logger
}

// newHashers returns n hashers. Where p.program is empty they are no processes:
// the hashes are computed in this one.
func newHashers(p process, n int, log *slog.Logger) []auth.Hasher {
	hashers := make([]auth.Hasher, n)
	for i := range hashers {
		hashers[i] = auth.HashJob.Do
		if p.program != "" {
			h := &hasher{keen: &worker{program: p.program}, log: log}
			if hasIdleClass {
				h.calm = make(chan *worker, 1)
				h.calm <- &worker{program: p.program, args: []string{"-calm", strconv.Itoa(i)}}
			}
			hashers[i] = h.do
		}
	}
	return hashers
}

// do has a process do the job. What none can do is done in this one.
func (h *hasher) do(job auth.HashJob) auth.HashResult {
	if result, ok := h.calmly(job); ok {
		return result
	}
	result, err := h.keen.do(job)
	if err != nil {
		h.log.Warn("a password was hashed beside the replies: the process for that has failed", "err", err)
		return job.Do()
	}
	return result
}

// calmly has the calm process do the job, unless it is still at an earlier one or
// takes too long. It is left to finish what nobody waits for any more.
func (h *hasher) calmly(job auth.HashJob) (_ auth.HashResult, ok bool) {
	var calm *worker
	select {
	case calm = <-h.calm:
	default:
		return auth.HashResult{}, false
	}
	type outcome struct {
		result auth.HashResult
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		result, err := calm.do(job)
		if err != nil {
			h.log.Debug("a calm process for passwords has failed", "err", err)
		}
		h.calm <- calm
		done <- outcome{result, err}
	}()
	patience := time.NewTimer(hashingCalmly)
	defer patience.Stop()
	select {
	case got := <-done:
		return got.result, got.err == nil
	case <-patience.C:
		return auth.HashResult{}, false
	}
}

// A worker is a process that does one job at a time.
type worker struct {
	program string
	args    []string

	command *exec.Cmd // nil: not started
	jobs    *gob.Encoder
	results *gob.Decoder
}

// do has the process do the job, and ends it if it cannot: the next job starts
// another one.
func (w *worker) do(job auth.HashJob) (auth.HashResult, error) {
	result, err := w.ask(job)
	if err != nil {
		w.end()
	}
	return result, err
}

// ask sends the job to the process, which it starts where there is none.
func (w *worker) ask(job auth.HashJob) (result auth.HashResult, err error) {
	if w.command == nil {
		if err := w.start(); err != nil {
			return auth.HashResult{}, err
		}
	}
	stuck := time.AfterFunc(hashingTimeout, func() { w.command.Process.Kill() }) //nolint:errcheck // it may have ended
	defer stuck.Stop()
	if err := w.jobs.Encode(job); err != nil {
		return auth.HashResult{}, err
	}
	err = w.results.Decode(&result)
	return result, err
}

func (w *worker) start() error {
	// It needs no setting, and should know no secret but the passwords. What it
	// may say on stderr as it dies is no line of a log. In a group of its own it
	// hears no signals of a terminal.
	command := exec.Command(w.program, append([]string{"hash"}, w.args...)...) //nolint:gosec,noctx // this program, until it ends
	command.Env = []string{}
	command.SysProcAttr = ownGroup()
	jobs, err := command.StdinPipe()
	if err != nil {
		return err
	}
	results, err := command.StdoutPipe()
	if err != nil {
		return err
	}
	if err := command.Start(); err != nil {
		return err
	}
	w.command, w.jobs, w.results = command, gob.NewEncoder(jobs), gob.NewDecoder(results)
	return nil
}

// end ends the process.
func (w *worker) end() {
	if w.command == nil {
		return
	}
	w.command.Process.Kill() //nolint:errcheck // it may have ended
	w.command.Wait()         //nolint:errcheck // how it ended does not matter
	w.command = nil
}

func hashCommand() command {
	return command{
		name:  "hash",
		does:  "hash passwords for parley serve, which starts it",
		about: "It reads jobs from stdin and writes results to stdout until stdin ends, at a low\npriority, so that the replies of the service do not notice.",
		setup: func(flags *flag.FlagSet) action {
			calm := flags.Int("calm", -1, "run on one processor and only where it has nothing else to do; processes of different `number`s choose different ones")
			return func(_ context.Context, p process) error { return hashPasswords(p, *calm) }
		},
	}
}

// hashPasswords does the jobs of the process that started this one, until that
// one ends. A signal is not for this one to heed: there may be a last job.
func hashPasswords(p process, calm int) error {
	giveWay()
	if calm >= 0 {
		runIdle(calm)
	}
	jobs, results := gob.NewDecoder(p.stdin), gob.NewEncoder(p.stdout)
	for {
		var job auth.HashJob
		if err := jobs.Decode(&job); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := results.Encode(job.Do()); err != nil {
			return err
		}
	}
}

// thisProgram is the file of this program. Where there is such a link, it is the
// file that was started, though another one has taken its name since.
func thisProgram() string {
	const link = "/proc/self/exe"
	if _, err := os.Stat(link); err == nil {
		return link
	}
	program, err := os.Executable()
	if err != nil {
		return ""
	}
	return program
}
