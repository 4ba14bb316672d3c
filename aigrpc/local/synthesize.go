package local

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
	"parley/speech"
)

// A format is how ffmpeg writes a recording.
type format struct {
	known   bool
	options []string
}

// An MP3 has nothing but its frames, so that several, one behind the other, are
// one.
var formats = map[string]format{
	"mp3":  {true, []string{"-c:a", "libmp3lame", "-b:a", "48k", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"}},
	"ogg":  {true, []string{"-c:a", "libopus", "-b:a", "32k", "-page_duration", "200000", "-f", "ogg"}},
	"webm": {true, []string{"-c:a", "libopus", "-b:a", "32k", "-cluster_time_limit", "500", "-f", "webm"}},
	"wav":  {true, []string{"-c:a", "pcm_s16le", "-f", "wav"}},
}

const (
	slowest = 0.25
	fastest = 4.0
	// A message has no more characters.
	maxCharacters = 32000
	// pieceBytes is how much audio goes out at once.
	pieceBytes = 16 << 10
	// speakingTime bounds what flite computes for one sentence, and encodingTime
	// what ffmpeg does for all.
	speakingTime = 10 * time.Second
	encodingTime = 5 * time.Minute
)

type spoken = grpc.ServerStreamingServer[amandaai.AudioChunk]

// Synthesize speaks a text in English, sentence by sentence: the first one is on
// its way while the next is spoken.
func (v *Voice) Synthesize(r *amandaai.SpeechRequest, s spoken) error {
	name, pace := r.GetVoice(), r.GetSpeed()
	if name == "" {
		name = v.config.Voice
	}
	if pace == 0 {
		pace = 1
	}
	sentences := sentencesOf(r.GetText())
	switch {
	case !formats[r.GetFormat()].known:
		return status.Error(codes.InvalidArgument, "the format is none of webm, mp3, wav and ogg")
	case !slices.Contains(v.voices, name):
		return status.Error(codes.InvalidArgument, "there is no such voice")
	case math.IsNaN(pace), pace < slowest, pace > fastest:
		return status.Error(codes.InvalidArgument, "the speed is not from 0.25 to 4")
	case utf8.RuneCountInString(r.GetText()) > maxCharacters:
		return status.Error(codes.InvalidArgument, "the text is too long")
	case len(sentences) == 0:
		return status.Error(codes.InvalidArgument, "the text has no words in the Latin alphabet")
	}
	leave, err := v.enter(s.Context(), v.speaking)
	if err != nil {
		return err
	}
	defer leave()
	limited, cancel := v.limited(s.Context())
	defer cancel()
	ctx, stop := context.WithCancelCause(limited)
	e := &encoding{voice: v, format: r.GetFormat(), stream: s}
	err = v.speak(ctx, sentences, name, pace, e)
	if err != nil {
		stop(err) // what still runs
	}
	if ended := e.end(); err == nil {
		err = ended
	}
	if err != nil && limited.Err() != nil {
		err = failure(limited, err)
	}
	stop(nil)
	return err
}

// sentencesOf returns what flite is told to say of a text.
func sentencesOf(text string) []string {
	var split speech.Splitter
	var all []string
	for _, sentence := range append(split.Add(text), split.Rest()) {
		if words := plain(sentence); words != "" {
			all = append(all, words)
		}
	}
	return all
}

// speak has flite speak the sentences and gives their samples to the encoder.
func (v *Voice) speak(ctx context.Context, sentences []string, name string, pace float64, e *encoding) error {
	stretch := strconv.FormatFloat(1/pace, 'f', 4, 64)
	for _, sentence := range sentences {
		samples, rate, err := v.say(ctx, sentence, name, stretch)
		if err == nil {
			err = e.write(ctx, samples, rate)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// say has flite speak one sentence and returns its samples, 16 bits, mono. flite
// can write nothing but files: this one has no name.
func (v *Voice) say(ctx context.Context, sentence, name, stretch string) (samples []byte, rate uint32, err error) {
	file, err := nameless()
	if err != nil {
		return nil, 0, status.Error(codes.Internal, "no file can be made")
	}
	defer closing(file)
	_, err = v.run(ctx, task{
		path:  v.programs.flite,
		args:  []string{"-voice", name, "--setf", "duration_stretch=" + stretch, "-f", "/dev/stdin", "-o", "/dev/fd/3"},
		cpu:   speakingTime,
		files: []*os.File{file},
	}, []byte(sentence))
	if err != nil {
		return nil, 0, ending(err, "flite failed")
	}
	sound, err := io.ReadAll(io.NewSectionReader(file, 0, maxFile))
	if err != nil {
		return nil, 0, status.Error(codes.Internal, "a file cannot be read")
	}
	// The header of flite's WAV files has always these parts.
	const header, rateAt = 44, 24
	if len(sound) <= header || string(sound[:4]) != "RIFF" {
		return nil, 0, status.Error(codes.Internal, "flite said nothing")
	}
	return sound[header:], binary.LittleEndian.Uint32(sound[rateAt:]), nil
}

// An encoding is a recording that ffmpeg makes of samples.
type encoding struct {
	voice  *Voice
	format string
	stream spoken

	process *process
	samples *os.File
	work    sync.WaitGroup
	sent    int
	err     error // of sending; read after work
}

// write encodes samples of one rate.
func (e *encoding) write(ctx context.Context, samples []byte, rate uint32) error {
	if e.process == nil {
		if err := e.start(ctx, rate); err != nil {
			return err
		}
	}
	if _, err := e.samples.Write(samples); err != nil {
		return status.Error(codes.Internal, "ffmpeg failed")
	}
	return nil
}

func (e *encoding) start(ctx context.Context, rate uint32) error {
	t := task{path: e.voice.programs.ffmpeg, cpu: encodingTime}
	t.args = append([]string{
		"-nostdin", "-hide_banner", "-nostats", "-loglevel", "quiet",
		"-threads", "1", "-protocol_whitelist", "pipe",
		"-probesize", "32", "-analyzeduration", "0",
		"-f", "s16le", "-ar", fmt.Sprint(rate), "-ac", "1", "-i", "pipe:0",
		"-flush_packets", "1", "-fflags", "+bitexact", "-map_metadata", "-1",
	}, formats[e.format].options...)
	t.args = append(t.args, "pipe:1")
	in, err := feed(&t)
	if err != nil {
		return status.Error(codes.Internal, "no pipe can be made")
	}
	out, err := drain(&t)
	if err != nil {
		_, _ = in.Close(), t.stdin.Close()
		return status.Error(codes.Internal, "no pipe can be made")
	}
	p, err := start(ctx, t)
	if err != nil {
		_, _ = in.Close(), out.Close()
		return status.Error(codes.Internal, "ffmpeg does not start")
	}
	e.process, e.samples = p, in
	e.work.Go(func() { e.err = e.send(out) })
	return nil
}

// send sends the recording as it is made. A client that takes no more has the
// encoder end.
func (e *encoding) send(out *os.File) error {
	defer closing(out)
	for {
		buf := make([]byte, pieceBytes) // gRPC may keep it
		n, err := out.Read(buf)
		if n > 0 {
			if err := e.stream.Send(&amandaai.AudioChunk{Data: buf[:n]}); err != nil {
				return err
			}
			e.sent += n
		}
		if err != nil {
			return nil // how the encoder ends is what counts
		}
	}
}

// end waits for the end of the encoder.
func (e *encoding) end() error {
	if e.process == nil {
		return nil
	}
	_ = e.samples.Close()
	ended := e.process.wait()
	e.work.Wait()
	switch {
	case e.err != nil:
		return e.err
	case ended != nil || e.sent == 0:
		return status.Error(codes.Internal, "ffmpeg failed")
	}
	return nil
}
