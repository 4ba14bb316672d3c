// Package local is an AI provider that hears and speaks English by programs of
// this machine: ffmpeg, pocketsphinx and flite. It never knows who speaks, keeps
// nothing of what is said, and trusts no recording. Its one invariant: a call that
// has ended leaves no process and no file behind, and while it runs it has no more
// processes, memory and time than it may.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
)

// Errors of New.
var (
	// ErrPrograms says that programs are missing, and which packages of Debian
	// have them.
	ErrPrograms = errors.New("local: programs are missing")
	// ErrVoice says that flite has no such voice.
	ErrVoice = errors.New("local: there is no such voice")
	// ErrGrammar says that the grammar cannot be read.
	ErrGrammar = errors.New("local: the grammar cannot be read")
)

// Config says how the programs are used. What is not positive has its default.
type Config struct {
	// Voice speaks where a request names none: one of flite's. Empty: slt.
	Voice string
	// Grammar is a file with a JSGF grammar: nothing else than what it allows is
	// understood, but that far better. Empty: all of English.
	Grammar string
	// Calls is how many recordings are heard at once, and how many texts are
	// spoken. 0: twice the processors.
	Calls int
	// Queueing is how long a call waits for others to end. 0: 5 s.
	Queueing time.Duration
	// MaxRecording is how long a recording may play. 0: 10 min.
	MaxRecording time.Duration
	// MaxTime is how long one call may take. 0: 20 min.
	MaxTime time.Duration
}

const (
	defaultVoice        = "slt"
	defaultQueueing     = 5 * time.Second
	defaultMaxRecording = 10 * time.Minute
	defaultMaxTime      = 20 * time.Minute
)

// modelDir is where Debian keeps pocketsphinx's English.
const modelDir = "/usr/share/pocketsphinx/model/en-us"

// A Voice hears and speaks. It is safe for concurrent use.
type Voice struct {
	amandaai.UnimplementedVoiceServiceServer
	config   Config
	programs programs
	voices   []string
	hearing  chan struct{} // a place for each recording
	speaking chan struct{} // a place for each text
}

// programs are the paths of those that are used.
type programs struct{ ffmpeg, pocketsphinx, flite string }

// New looks for the programs and asks flite for its voices. ErrPrograms, ErrVoice,
// ErrGrammar.
func New(ctx context.Context, c Config) (*Voice, error) {
	found, err := find()
	if err != nil {
		return nil, err
	}
	if c.Voice == "" {
		c.Voice = defaultVoice
	}
	for _, d := range []struct {
		value  *time.Duration
		preset time.Duration
	}{{&c.Queueing, defaultQueueing}, {&c.MaxRecording, defaultMaxRecording}, {&c.MaxTime, defaultMaxTime}} {
		if *d.value <= 0 {
			*d.value = d.preset
		}
	}
	if c.Calls <= 0 {
		c.Calls = 2 * runtime.GOMAXPROCS(0)
	}
	if c.Grammar != "" {
		if c.Grammar, err = filepath.Abs(c.Grammar); err == nil {
			_, err = os.ReadFile(c.Grammar)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrGrammar, err)
		}
	}
	v := &Voice{config: c, programs: found, hearing: make(chan struct{}, c.Calls), speaking: make(chan struct{}, c.Calls)}
	if v.voices, err = v.listVoices(ctx); err != nil {
		return nil, err
	}
	if !slices.Contains(v.voices, c.Voice) {
		return nil, fmt.Errorf("%w: %q; flite has %s", ErrVoice, c.Voice, strings.Join(v.voices, ", "))
	}
	return v, nil
}

// find looks for what is needed, and says of all that is missing where it comes
// from.
func find() (programs, error) {
	var p programs
	var missing, packages []string
	for _, program := range []struct {
		path         *string
		name, debian string
	}{
		{&p.ffmpeg, "ffmpeg", "ffmpeg"},
		{&p.pocketsphinx, "pocketsphinx_continuous", "pocketsphinx"},
		{&p.flite, "flite", "flite"},
	} {
		path, err := exec.LookPath(program.name)
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			missing, packages = append(missing, program.name), append(packages, program.debian)
		}
		*program.path = path
	}
	if _, err := os.Stat(modelDir); err != nil {
		missing, packages = append(missing, modelDir), append(packages, "pocketsphinx-en-us")
	}
	if missing != nil {
		return p, fmt.Errorf("%w: %s; on Debian, apt-get install %s", ErrPrograms, strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return p, nil
}

// listVoices asks flite for its voices that speak any text.
func (v *Voice) listVoices(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := v.run(ctx, task{path: v.programs.flite, args: []string{"-lv"}, cpu: time.Second}, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: flite does not run: %w", ErrPrograms, err)
	}
	_, names, _ := strings.Cut(string(out), ":")
	// awb_time says what time it is, and nothing else.
	return slices.DeleteFunc(strings.Fields(names), func(name string) bool { return name == "awb_time" }), nil
}

// enter takes a place, for which it waits a little, and returns what leaves it.
func (v *Voice) enter(ctx context.Context, places chan struct{}) (leave func(), err error) {
	t := time.NewTimer(v.config.Queueing)
	defer t.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-t.C:
		return nil, status.Error(codes.ResourceExhausted, "all voices are busy")
	}
}

// errTime ends a call that takes too long.
var errTime = status.Error(codes.ResourceExhausted, "the call took too long")

// limited is ctx for no longer than a call may take.
func (v *Voice) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, v.config.MaxTime, errTime)
}

// failure is err, or what ended the call before.
func failure(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		if _, told := status.FromError(cause); told {
			return cause
		}
		return status.FromContextError(ctx.Err()).Err()
	}
	return err
}
