package provider

import (
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	"parley/aigrpc/amandaai"
)

// FinishStop, FinishLength and FinishFilter are how an answer ends, in the
// words that all providers use: by itself, at a limit, or cut off for what it
// says.
const (
	FinishStop   = "stop"
	FinishLength = "length"
	FinishFilter = "content_filter"
)

// ErrFull says that an answer is as long as it may be.
var ErrFull = errors.New("provider: the answer is as long as it may be")

const (
	defaultAnswerBytes = 1 << 20

	// A text that begins with all of what it should go on from repeats it, if
	// that is long enough to be no coincidence.
	shortestEcho = 16

	// Signs of life are passed on when nothing was for so long: a fast model
	// thinks many thoughts in a second, and a slow one may need many for each.
	pulse = time.Second
)

// An Answer is an answer on its way to the client. Its text is what Write was
// given: put together where a rune was split, with U+FFFD for what is no UTF-8
// and for NUL, and within the bound. It is for one goroutine.
type Answer struct {
	out  grpc.ServerStreamingServer[amandaai.ChatChunk]
	room int // bytes of text that still fit

	continued bool
	echo      string // what the server may repeat before it goes on
	heard     string // of echo, so far
	half      string // the beginning of a rune
	begun     bool
	sent      time.Time // when the last chunk was
}

// NewAnswer begins an answer of at most so many bytes, 1 MiB if that is 0.
func NewAnswer(out grpc.ServerStreamingServer[amandaai.ChatChunk], maxBytes int) *Answer {
	if maxBytes <= 0 {
		maxBytes = defaultAnswerBytes
	}
	return &Answer{out: out, room: maxBytes}
}

// GoOn says before the first chunk what the answer goes on from; it begins anew
// if that is empty. A server that repeats the text first is not heard twice.
func (a *Answer) GoOn(from string) {
	a.continued = from != ""
	a.echo, a.heard = "", ""
	if len(from) >= shortestEcho {
		a.echo = from
	}
}

// Begun reports whether a chunk is out, so that the answer can only be gone on
// with.
func (a *Answer) Begun() bool { return a.begun }

// Write sends text. It returns ErrFull, or the stream's error. Once it has
// returned ErrFull, End may follow.
func (a *Answer) Write(text string) error { return a.send(a.mend(a.listen(text))) }

// Alive tells a client that is patient for so long only that the model is at
// work, though it says nothing yet: now and then by a chunk without text.
func (a *Answer) Alive() error {
	if time.Since(a.sent) < pulse {
		return nil
	}
	return a.chunk(&amandaai.ChatChunk{})
}

// End sends the last chunk. Usage may be nil.
func (a *Answer) End(finishReason string, usage *amandaai.Usage) error {
	rest := a.mend(a.heard) + strings.Repeat(string(utf8.RuneError), len(a.half))
	if err := a.send(rest); err != nil && !errors.Is(err, ErrFull) {
		return err
	}
	return a.chunk(&amandaai.ChatChunk{
		Done:         true,
		FinishReason: strings.ToValidUTF8(finishReason, "\ufffd"),
		Usage:        usage,
	})
}

// listen returns what is new in text: not a repetition of what the answer goes
// on from.
func (a *Answer) listen(text string) string {
	if a.echo == "" {
		return text
	}
	a.heard += text
	if len(a.heard) < len(a.echo) && strings.HasPrefix(a.echo, a.heard) {
		return ""
	}
	text = strings.TrimPrefix(a.heard, a.echo)
	a.echo, a.heard = "", ""
	return text
}

// mend returns text as it may be sent, after the half rune that was kept and
// without the one at its end.
func (a *Answer) mend(text string) string {
	text = a.half + text
	a.half = ""
	for i := len(text) - 1; i >= max(0, len(text)-utf8.UTFMax+1); i-- {
		if utf8.RuneStart(text[i]) {
			if !utf8.FullRuneInString(text[i:]) {
				text, a.half = text[:i], text[i:]
			}
			break
		}
	}
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", "\ufffd")
}

func (a *Answer) send(text string) error {
	full := len(text) > a.room
	if full {
		end := a.room
		for end > 0 && !utf8.RuneStart(text[end]) {
			end--
		}
		text = text[:end]
		a.room = 0
	}
	if text != "" {
		a.room = max(0, a.room-len(text))
		if err := a.chunk(&amandaai.ChatChunk{Text: text}); err != nil {
			return err
		}
	}
	if full {
		a.half = ""
		return ErrFull
	}
	return nil
}

func (a *Answer) chunk(c *amandaai.ChatChunk) error {
	c.Continued = a.continued && !a.begun
	a.begun = true
	a.sent = time.Now()
	return a.out.Send(c)
}
