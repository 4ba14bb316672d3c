// Package main is the program: its command line, its settings, its log, and
// the wiring of the rooms with one another.
//
// It knows no SQL, no route and no token. What it gets from the system that
// starts it (arguments, environment, streams, signals) it gets in main, once,
// and hands on as values: run is a function like any other, and a test may
// call it twice at a time.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks for an orderly end, a second one kills. Some who end
	// a process signal it and then its group: that is the same signal twice.
	context.AfterFunc(ctx, func() { time.AfterFunc(time.Second/2, stop) })
	os.Exit(run(ctx, process{
		args:    os.Args[1:],
		environ: environment(),
		dotenv:  ".env",
		program: thisProgram(),
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
	}))
}

// A process is what the system gives to a program that it starts.
type process struct {
	args           []string // without the program's name
	environ        []string // NAME=value
	dotenv         string   // file of further settings; empty: none
	program        string   // file of this program, for starting it again; empty: not to be had
	stdin          io.Reader
	stdout, stderr io.Writer
}

// run does what the arguments say until it is done or ctx ends, and returns
// the exit code: 0, 1 for a failure, 2 for a command line that makes no sense.
// A failure is told on stderr, a line for each thing that is wrong.
func run(ctx context.Context, p process) int {
	err := parley().dispatch(ctx, p, "parley", p.args)
	if err == nil {
		return 0
	}
	if usage, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(p.stderr, usage)
		return 2
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(p.stderr, "parley: %s\n", strings.TrimSpace(line))
	}
	return 1
}
