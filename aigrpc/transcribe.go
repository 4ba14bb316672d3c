package aigrpc

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"

	"parley/aigrpc/amandaai"
)

// Transcribe sends the recording that next returns piece by piece, as it arrives,
// until io.EOF, and returns what was understood, "" for nothing: valid UTF-8
// without NUL, at most 128 KiB. It ends when next returns an error or ctx ends
// (with that error), or the backend fails (a *stream.BackendError). next is called
// from one goroutine, and not once Transcribe has returned; a piece is valid until
// the following call. What next takes is no part of any deadline.
func (v *Voice) Transcribe(ctx context.Context, format, language string, next func(ctx context.Context) ([]byte, error)) (string, error) {
	c, err := v.begin(ctx)
	if err != nil {
		return "", err
	}
	defer c.end()
	c.wait(c.limits.FirstChunk)
	hearing, err := v.service.Transcribe(c.ctx, grpc.ForceCodecV2(chunkCodec{}))
	c.came()
	if err != nil {
		return "", c.failure(err)
	}
	t := &transcription{call: c, stream: hearing}
	heard := make(chan error, 1)
	go func() {
		err := t.hear()
		c.cancel(err) // nothing more is to be sent
		heard <- err
	}()
	if err := t.send(format, language, next); err != nil {
		c.cancel(err)
	}
	return t.outcome(<-heard)
}

// outcome is what Transcribe returns when the backend was heard with err.
func (t *transcription) outcome(err error) (string, error) {
	var own *nextError
	switch cause := context.Cause(t.ctx); {
	case t.over:
		t.tell(nil)
		return t.text.all(), nil
	case t.asked.Err() == nil && errors.As(cause, &own):
		return "", own.err
	case t.asked.Err() != nil, errors.Is(cause, errSilent):
		return "", t.failure(err)
	case errors.Is(err, errTooMuch):
		return "", t.fault(err)
	}
	failed := voiceError(err)
	t.tell(failed)
	return "", failed
}

// A transcription is a recording on its way, and what is heard of it.
type transcription struct {
	*call

	stream grpc.BidiStreamingClient[amandaai.AudioChunk, amandaai.TranscriptChunk]
	whole  atomic.Bool // all of the recording is sent
	over   bool        // the backend has ended the transcript
	text   transcript
}

// A nextError is an error of whoever reads the recording.
type nextError struct{ err error }

func (e *nextError) Error() string { return e.err.Error() }

// send sends the recording, in pieces that a slow transcriber takes in time. It
// returns nil once all of it is sent, or the backend wants no more of it.
func (t *transcription) send(format, language string, next func(context.Context) ([]byte, error)) error {
	chunk := &amandaai.AudioChunk{Format: format, Language: language}
	for {
		data, err := next(t.ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return &nextError{err}
		}
		for len(data) > 0 {
			n := min(len(data), maxPieceBytes)
			chunk.Data, data = data[:n], data[n:]
			if !t.sent(chunk) {
				return nil
			}
			chunk.Format, chunk.Language = "", ""
		}
	}
	if chunk.Format != "" { // nothing was recorded
		chunk.Data = nil
		if !t.sent(chunk) {
			return nil
		}
	}
	t.wait(t.limits.FirstChunk)
	t.whole.Store(true)      // from here on hear has the clock
	_ = t.stream.CloseSend() // its failure is that of what is heard
	return nil
}

// sent sends a chunk, and reports whether the backend may want another: if not,
// hear learns why.
func (t *transcription) sent(chunk *amandaai.AudioChunk) bool {
	t.patience.Reset(t.limits.Chunk)
	err := t.stream.Send(chunk)
	t.patience.Stop()
	return err == nil
}

// hear reads what the backend understands, until it has ended.
func (t *transcription) hear() error {
	for {
		var chunk heard
		switch err := t.stream.RecvMsg(&chunk); {
		case errors.Is(err, io.EOF) && t.ctx.Err() == nil:
			t.over = true
			return nil
		case err != nil:
			return err
		}
		t.text.add(chunk)
		if t.text.final.Len()+len(t.text.provisional) > maxTranscriptBytes {
			return errTooMuch
		}
		if t.whole.Load() {
			t.came()
			t.wait(t.limits.Chunk)
		}
	}
}

// heard is a TranscriptChunk, with its text mended.
type heard struct {
	text  string
	final bool
}

// decode reads a TranscriptChunk's wire format as incoming.decode does.
func (h *heard) decode(b []byte) error {
	*h = heard{}
	for len(b) > 0 {
		f, rest, err := consumeField(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(fieldTranscript, protowire.BytesType):
			h.text = mendAll(f.bytes)
		case f.is(fieldFinal, protowire.VarintType):
			h.final = protowire.DecodeBool(f.varint)
		}
	}
	return nil
}

// A transcript grows by its final parts; what is provisional may become its end.
type transcript struct {
	final       strings.Builder
	last        rune // of final
	provisional string
}

func (t *transcript) add(chunk heard) {
	t.provisional = chunk.text
	if chunk.final && chunk.text != "" {
		t.final.WriteString(t.joint() + chunk.text)
		t.last, _ = utf8.DecodeLastRuneInString(chunk.text)
		t.provisional = ""
	}
}

// all is the transcript so far.
func (t *transcript) all() string { return t.final.String() + t.joint() + t.provisional }

// joint is what belongs between the final text and the provisional one.
func (t *transcript) joint() string {
	next, _ := utf8.DecodeRuneInString(t.provisional)
	if t.final.Len() == 0 || t.provisional == "" || unicode.IsSpace(t.last) || unicode.IsSpace(next) ||
		unicode.In(t.last, spaceless...) && unicode.In(next, spaceless...) {
		return ""
	}
	return " "
}

// spaceless are scripts that set no space between words, and their marks.
var spaceless = []*unicode.RangeTable{
	unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar,
	{R16: []unicode.Range16{{Lo: 0x3000, Hi: 0x303f, Stride: 1}, {Lo: 0xff00, Hi: 0xffef, Stride: 1}}},
}
