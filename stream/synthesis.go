package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"parley/speech"
)

// ErrVoiceUnavailable means that there is nobody here who speaks.
var ErrVoiceUnavailable = errors.New("stream: there is no voice")

// A Synthesizer speaks.
type Synthesizer interface {
	// Synthesize calls each for every piece of the audio of s, in order and from
	// one goroutine, until it is whole (nil), each returns an error (returned as
	// it is), ctx ends (its error), or the service fails (a *BackendError). A piece
	// is valid until each returns. It may be called from many goroutines.
	Synthesize(ctx context.Context, s Speech, each func(audio []byte) error) error
}

// A Speech is what a Synthesizer is asked to say: words without marks of Markdown.
type Speech struct {
	Text   string
	Voice  string  // "": the service's choice
	Speed  float64 // 0: as the voice speaks
	Format string  // webm, mp3, wav or ogg
}

// The codes of a BackendError of a service that hears or speaks.
const (
	CodeVoiceUnavailable = "voice_unavailable" // not to be reached, or there is none
	CodeVoiceTimeout     = "voice_timeout"     // silent for too long
	CodeVoiceBusy        = "voice_busy"        // no capacity, over quota
	CodeVoiceError       = "voice_error"       // broke off
	CodeVoiceRefused     = "voice_refused"     // cannot: it knows no such voice, format or script, or it is too long
)

// joinable is the format of which files one behind the other are a file.
const joinable = "mp3"

// Speak has a text spoken, which may be in Markdown, for one who plays it as it is
// made: each is called as Synthesize does it. A text in a format that can be
// joined is spoken sentence by sentence, so that the first is heard soon.
// ErrVoiceUnavailable, ErrOverloaded; errors as of Synthesize.
func (h *Hub) Speak(ctx context.Context, s Speech, each func(audio []byte) error) error {
	if h.config.Synthesizer == nil {
		return ErrVoiceUnavailable
	}
	waiting, cancel := context.WithTimeout(ctx, queueing)
	defer cancel()
	select {
	case h.speaking <- struct{}{}:
	case <-waiting.Done():
		if err := ctx.Err(); err != nil {
			return err
		}
		return ErrOverloaded
	}
	defer func() { <-h.speaking }()
	for _, part := range partsOf(s) {
		s.Text = part
		if err := h.config.Synthesizer.Synthesize(ctx, s, each); err != nil {
			return err
		}
	}
	return nil
}

// partsOf returns what is to be said of a text, a part for each call.
func partsOf(s Speech) []string {
	sentences := []string{s.Text}
	if s.Format == joinable {
		var split speech.Splitter
		sentences = append(split.Add(s.Text), split.Rest())
	}
	var parts []string
	for _, sentence := range sentences {
		words := speech.Spoken(sentence)
		switch last := len(parts) - 1; {
		case words == "":
		case last >= 0 && len(parts[last])+len(words) < shortWords:
			parts[last] += " " + words
		default:
			parts = append(parts, words)
		}
	}
	return parts
}

// shortWords is how long what is said at once is in bytes before nothing is added
// to it.
const shortWords = 80

const (
	// speakingFor bounds one sentence's synthesis.
	speakingFor = 90 * time.Second
	// maxPiece bounds its audio in bytes.
	maxPiece = 4 << 20
)

// errPiece is audio that is none.
var errPiece = errors.New("the audio of a sentence is empty, or longer than it may be")

// synthesize returns the audio of one sentence, and tries once more where that may
// help, and for a while as long as the service has no room. It waits for a place
// among the calls of this process.
func (h *Hub) synthesize(ctx context.Context, s Speech) ([]byte, error) {
	select {
	case h.voices <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { <-h.voices }()
	for tries := 1; ; tries++ {
		audio, err := h.synthesizeOnce(ctx, s)
		var failed *BackendError
		known := errors.As(err, &failed)
		busy := known && failed.Code == CodeVoiceBusy && tries <= maxBusy
		if err == nil || ctx.Err() != nil || known && !failed.Retryable || tries > 1 && !busy {
			return audio, err
		}
		if busy {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(tries) * busyPause):
			}
		}
	}
}

const (
	// maxBusy is how often a service that has no room is asked again, each time
	// after a pause that is longer by busyPause.
	maxBusy   = 10
	busyPause = 200 * time.Millisecond
)

func (h *Hub) synthesizeOnce(ctx context.Context, s Speech) (audio []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &BackendError{Code: CodeVoiceError, Err: fmt.Errorf("panic: %v\n%s", p, debug.Stack())}
		}
	}()
	limited, cancel := context.WithTimeout(ctx, speakingFor)
	defer cancel()
	err = h.config.Synthesizer.Synthesize(limited, s, func(some []byte) error {
		if audio = append(audio, some...); len(audio) > maxPiece {
			return &BackendError{Code: CodeVoiceError, Err: errPiece}
		}
		return nil
	})
	if err == nil && len(audio) == 0 {
		err = &BackendError{Code: CodeVoiceError, Retryable: true, Err: errPiece}
	}
	return audio, err
}
