package local

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
)

// decoders are those that recordings of the formats need, and no others: a
// container may hold anything.
const decoders = "opus,libopus,vorbis,libvorbis,mp3,mp3float,flac,pcm_s16le,pcm_s24le,pcm_s32le,pcm_u8,pcm_f32le,pcm_alaw,pcm_mulaw"

// signsOfLife is how often a client that waits learns that the recording is worked
// on.
const signsOfLife = 5 * time.Second

type hearing = grpc.BidiStreamingServer[amandaai.AudioChunk, amandaai.TranscriptChunk]

// Transcribe hears a recording in English as it arrives. What is understood of it
// goes out provisionally, and at the end once more: nothing, if nobody spoke.
func (v *Voice) Transcribe(s hearing) error {
	first, err := s.Recv()
	switch {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	case !formats[first.GetFormat()].known:
		return status.Error(codes.InvalidArgument, "the format is none of webm, mp3, wav and ogg")
	}
	if language, _, _ := strings.Cut(strings.ToLower(first.GetLanguage()), "-"); language != "" && language != "en" {
		return status.Error(codes.InvalidArgument, "only English is understood")
	}
	leave, err := v.enter(s.Context(), v.hearing)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := v.limited(s.Context())
	defer cancel()
	t := &transcription{stream: s, most: int64(v.config.MaxRecording.Seconds() * bytesPerSecond)}
	text, err := v.listen(ctx, first, t)
	if err != nil {
		return failure(ctx, err)
	}
	// Of nothing too: words that were provisional are none then.
	return s.Send(&amandaai.TranscriptChunk{Text: text, Final: true})
}

// A transcription is a recording that is heard.
type transcription struct {
	stream hearing
	most   int64 // bytes of samples

	gate gate
	size int64 // bytes of samples so far

	mu    sync.Mutex // of what follows, and of sending
	lines []string
	told  time.Time
}

// listen runs the recording through ffmpeg and what comes out of it through
// pocketsphinx, and returns what was understood.
func (v *Voice) listen(ctx context.Context, first *amandaai.AudioChunk, t *transcription) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	decode := task{path: v.programs.ffmpeg, args: v.decoding(first.GetFormat()), cpu: v.config.MaxRecording / 4}
	understand := task{path: v.programs.pocketsphinx, args: v.understanding(), cpu: 2 * v.config.MaxRecording}
	pipes, err := connect(&decode, &understand)
	if err != nil {
		cancel(nil)
		return "", status.Error(codes.Internal, "no pipe can be made")
	}
	var work sync.WaitGroup
	defer work.Wait()
	defer pipes.close()
	defer cancel(nil)
	decoder, err := start(ctx, decode)
	if err != nil {
		_, _ = understand.stdin.Close(), understand.stdout.Close()
		return "", status.Error(codes.Internal, "ffmpeg does not start")
	}
	work.Go(func() { _ = decoder.wait() })
	recognizer, err := start(ctx, understand)
	if err != nil {
		return "", status.Error(codes.Internal, "pocketsphinx does not start")
	}
	work.Go(func() { _ = recognizer.wait() })

	// It reads from the client's stream, which ends when the call has.
	go feedDecoder(t.stream, first, pipes.recording, cancel)
	passed := make(chan struct{})
	work.Go(func() {
		defer close(passed)
		t.pass(pipes.samples, pipes.heard, cancel)
	})
	t.read(pipes.words)
	if err := recognizer.wait(); err != nil {
		cancel(ending(err, "pocketsphinx failed")) // nobody listens any more
	}
	decoded := decoder.wait()
	<-passed
	switch {
	case context.Cause(ctx) != nil:
		return "", context.Cause(ctx)
	case decoded != nil && died(decoded):
		return "", ending(decoded, "ffmpeg failed")
	case t.size == 0:
		return "", status.Error(codes.InvalidArgument, "the recording cannot be read in its format")
	case !t.gate.speech():
		return "", nil
	}
	return t.text(), nil // of a recording that ends badly what there is
}

// decoding is how ffmpeg makes samples of a recording.
func (v *Voice) decoding(format string) []string {
	return []string{
		"-nostdin", "-hide_banner", "-nostats", "-loglevel", "quiet",
		"-threads", "1",
		"-protocol_whitelist", "pipe", "-codec_whitelist", decoders,
		// So much is looked at to find out what is in it.
		"-probesize", "32768", "-analyzeduration", "500000",
		"-f", format, "-i", "pipe:0",
		"-map", "0:a:0", "-vn", "-sn", "-dn",
		// Of a recording that is too long a little more is read, to tell.
		"-t", strconv.FormatFloat(v.config.MaxRecording.Seconds()+1, 'f', -1, 64),
		"-ac", "1", "-ar", strconv.Itoa(sampleRate), "-c:a", "pcm_s16le",
		"-flush_packets", "1", "-f", "s16le", "pipe:1",
	}
}

// understanding is how pocketsphinx finds words in samples.
func (v *Voice) understanding() []string {
	args := []string{
		"-infile", "/dev/stdin", "-logfn", "/dev/null",
		"-hmm", filepath.Join(modelDir, "en-us"),
		"-dict", filepath.Join(modelDir, "cmudict-en-us.dict"),
	}
	if v.config.Grammar != "" {
		return append(args, "-jsgf", v.config.Grammar)
	}
	return append(args, "-lm", filepath.Join(modelDir, "en-us.lm.bin"))
}

// pipes are our ends of those between the processes.
type pipes struct{ recording, samples, heard, words *os.File }

// connect gives both tasks their pipes.
func connect(decode, understand *task) (*pipes, error) {
	var p pipes
	var errs [4]error
	p.recording, errs[0] = feed(decode)
	p.samples, errs[1] = drain(decode)
	p.heard, errs[2] = feed(understand)
	p.words, errs[3] = drain(understand)
	if err := errors.Join(errs[:]...); err != nil {
		p.close()
		for _, f := range []*os.File{decode.stdin, decode.stdout, understand.stdin, understand.stdout} {
			_ = f.Close() // of nil too
		}
		return nil, err
	}
	return &p, nil
}

func (p *pipes) close() {
	for _, f := range []*os.File{p.recording, p.samples, p.heard, p.words} {
		_ = f.Close() // of nil or closed too
	}
}

// feedDecoder writes the recording as it arrives. A decoder that reads no more has
// its reason.
func feedDecoder(s hearing, chunk *amandaai.AudioChunk, to *os.File, fail context.CancelCauseFunc) {
	defer closing(to)
	for {
		if len(chunk.GetData()) > 0 {
			if _, err := to.Write(chunk.GetData()); err != nil {
				return
			}
		}
		var err error
		switch chunk, err = s.Recv(); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			fail(err)
			return
		}
	}
}

var errTooLong = status.Error(codes.OutOfRange, "the recording is too long")

// pass passes the samples on, and listens to them.
func (t *transcription) pass(from, to *os.File, fail context.CancelCauseFunc) {
	defer closing(to)
	defer closing(from) // nothing is read any more
	buf := make([]byte, 8<<10)
	for {
		n, err := from.Read(buf)
		t.gate.hear(buf[:n])
		if t.size += int64(n); t.size > t.most {
			fail(errTooLong)
			return
		}
		if n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return // its end tells
			}
			t.tell()
		}
		if err != nil {
			return
		}
	}
}

// read reads the lines of what was understood until the end.
func (t *transcription) read(words *os.File) {
	lines := bufio.NewScanner(words)
	lines.Buffer(nil, maxOutput)
	for lines.Scan() {
		if line := strings.Join(strings.Fields(lines.Text()), " "); line != "" {
			t.mu.Lock()
			t.lines = append(t.lines, line)
			t.told = time.Time{}
			t.mu.Unlock()
			t.tell()
		}
	}
}

// text is what was understood so far.
func (t *transcription) text() string { return strings.Join(t.lines, " ") }

// tell tells the client what was understood so far when that is more than before,
// and now and then in any case: it waits no longer than it hears from us.
func (t *transcription) tell() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.told) < signsOfLife {
		return
	}
	t.told = time.Now()
	_ = t.stream.Send(&amandaai.TranscriptChunk{Text: t.text()}) // a client that has left ends the call
}
