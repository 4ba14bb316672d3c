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
	"time"

	"parley/auth"
)

// hashingTimeout is how long one hash may take before its process is taken for
// stuck: longer than the dearest that package auth takes needs.
const hashingTimeout = time.Minute

// A hasher is a process that computes one hash at a time, at a lower priority
// than this one. It is started when the first hash is wanted, and ends by itself
// when this process does.
//
// A goroutine would not do. It holds one of the few places in which goroutines
// run for as long as a hash takes, on a thread of lower priority even longer,
// and one hash is as much garbage to collect as hundreds of replies.
type hasher struct {
	program string
	log     *slog.Logger

	command *exec.Cmd // nil: not started
	jobs    *gob.Encoder
	results *gob.Decoder
}

// newHashers returns n hashers. Where p.program is empty they are no processes:
// the hashes are computed in this one.
func newHashers(p process, n int, log *slog.Logger) []auth.Hasher {
	hashers := make([]auth.Hasher, n)
	for i := range hashers {
		hashers[i] = auth.HashJob.Do
		if p.program != "" {
			h := &hasher{program: p.program, log: log}
			hashers[i] = h.do
		}
	}
	return hashers
}

// do has the process do the job. What the process cannot do is done in this one.
func (h *hasher) do(job auth.HashJob) auth.HashResult {
	result, err := h.ask(job)
	if err != nil {
		h.log.Warn("a password was hashed beside the replies: the process for that has failed", "err", err)
		h.end()
		return job.Do()
	}
	return result
}

// ask sends the job to the process, which it starts where there is none.
func (h *hasher) ask(job auth.HashJob) (result auth.HashResult, err error) {
	if h.command == nil {
		if err := h.start(); err != nil {
			return auth.HashResult{}, err
		}
	}
	stuck := time.AfterFunc(hashingTimeout, func() { h.command.Process.Kill() }) //nolint:errcheck // it may have ended
	defer stuck.Stop()
	if err := h.jobs.Encode(job); err != nil {
		return auth.HashResult{}, err
	}
	err = h.results.Decode(&result)
	return result, err
}

func (h *hasher) start() error {
	// It needs no setting, and should know no secret but the passwords. What it
	// may say on stderr as it dies is no line of a log. In a group of its own it
	// hears no signals of a terminal.
	command := exec.Command(h.program, "hash") //nolint:gosec,noctx // this program, until it ends
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
	h.command, h.jobs, h.results = command, gob.NewEncoder(jobs), gob.NewDecoder(results)
	return nil
}

// end ends the process, so that the next job starts another one.
func (h *hasher) end() {
	if h.command == nil {
		return
	}
	h.command.Process.Kill() //nolint:errcheck // it may have ended
	h.command.Wait()         //nolint:errcheck // how it ended does not matter
	h.command = nil
}

func hashCommand() command {
	return command{
		name:  "hash",
		does:  "hash passwords for parley serve, which starts it",
		about: "It reads jobs from stdin and writes results to stdout until stdin ends, at a low\npriority, so that the replies of the service do not notice.",
		setup: func(*flag.FlagSet) action { return hashPasswords },
	}
}

// hashPasswords does the jobs of the process that started this one, until that
// one ends. A signal is not for this one to heed: there may be a last job.
func hashPasswords(_ context.Context, p process) error {
	giveWay()
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
