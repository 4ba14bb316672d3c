package aigrpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/stream"
)

type (
	hearing = grpc.BidiStreamingServer[amandaai.AudioChunk, amandaai.TranscriptChunk]
	speech  = grpc.ServerStreamingServer[amandaai.AudioChunk]
)

// A voice hears and speaks as its functions say.
type voice struct {
	amandaai.UnimplementedVoiceServiceServer
	hear  func(hearing) error
	speak func(*amandaai.SpeechRequest, speech) error
}

func (v voice) Transcribe(s hearing) error                           { return v.hear(s) }
func (v voice) Synthesize(r *amandaai.SpeechRequest, s speech) error { return v.speak(r, s) }

// hears reads all of a recording, and answers with the given chunks and the error.
func hears(last error, chunks ...*amandaai.TranscriptChunk) func(hearing) error {
	return func(s hearing) error {
		for {
			if _, err := s.Recv(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
		}
		for _, c := range chunks {
			if err := s.Send(c); err != nil {
				return err
			}
		}
		return last
	}
}

// speaks answers with the given pieces and the error.
func speaks(last error, pieces ...string) func(*amandaai.SpeechRequest, speech) error {
	return func(_ *amandaai.SpeechRequest, s speech) error {
		for _, p := range pieces {
			if err := s.Send(&amandaai.AudioChunk{Data: []byte(p)}); err != nil {
				return err
			}
		}
		return last
	}
}

func final(text string) *amandaai.TranscriptChunk {
	return &amandaai.TranscriptChunk{Text: text, Final: true}
}

func provisional(text string) *amandaai.TranscriptChunk {
	return &amandaai.TranscriptChunk{Text: text}
}

// serveVoice serves v over TCP until the test ends.
func serveVoice(t *testing.T, v amandaai.VoiceServiceServer, opts ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	amandaai.RegisterVoiceServiceServer(s, v)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func dialVoice(t *testing.T, c aigrpc.Config) *aigrpc.Voice {
	t.Helper()
	client, err := aigrpc.DialVoice(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

func voiceInProcess(t *testing.T, v voice, d aigrpc.Deadlines) *aigrpc.Voice {
	t.Helper()
	client, err := aigrpc.InProcessVoice(v, d, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
	return client
}

// recording returns its pieces, and then io.EOF.
func recording(pieces ...string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		if len(pieces) == 0 {
			return nil, io.EOF
		}
		piece := pieces[0]
		pieces = pieces[1:]
		return []byte(piece), nil
	}
}

func TestTranscribeSendsTheRecording(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 70<<10)
	for name, tt := range map[string]struct {
		pieces []string
		want   []*amandaai.AudioChunk
	}{
		"in its pieces, of which the first says what it is": {
			[]string{"RIFF", "...."},
			[]*amandaai.AudioChunk{{Data: []byte("RIFF"), Format: "wav", Language: "de"}, {Data: []byte("....")}},
		},
		"a large piece in several": {
			[]string{large},
			[]*amandaai.AudioChunk{
				{Data: []byte(large[:32<<10]), Format: "wav", Language: "de"},
				{Data: []byte(large[:32<<10])},
				{Data: []byte(large[:6<<10])},
			},
		},
		"of which there is nothing": {nil, []*amandaai.AudioChunk{{Format: "wav", Language: "de"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []*amandaai.AudioChunk
			v := voice{hear: func(s hearing) error {
				for {
					chunk, err := s.Recv()
					if errors.Is(err, io.EOF) {
						return s.Send(final("Yes."))
					}
					if err != nil {
						return err
					}
					got = append(got, chunk)
				}
			}}
			text, err := dialVoice(t, aigrpc.Config{Target: serveVoice(t, v)}).Transcribe(t.Context(), "wav", "de", recording(tt.pieces...))
			if text != "Yes." || err != nil {
				t.Errorf("got %q, %v", text, err)
			}
			if diff := cmp.Diff(got, tt.want, protocmp.Transform()); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestTranscripts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		chunks []*amandaai.TranscriptChunk
		want   string
	}{
		"nothing":                          {nil, ""},
		"a part":                           {[]*amandaai.TranscriptChunk{final("I hear.")}, "I hear."},
		"parts get a space between them":   {[]*amandaai.TranscriptChunk{final("I hear."), final("Go on.")}, "I hear. Go on."},
		"parts that have one":              {[]*amandaai.TranscriptChunk{final("I hear. "), final("Go"), final(" on.")}, "I hear. Go on."},
		"parts in a script without":        {[]*amandaai.TranscriptChunk{final("你好。"), final("我在。")}, "你好。我在。"},
		"what is provisional is replaced":  {[]*amandaai.TranscriptChunk{provisional("Eye"), provisional("I here"), final("I hear.")}, "I hear."},
		"and at the end it stays":          {[]*amandaai.TranscriptChunk{final("I hear."), provisional("Go"), provisional("Go on.")}, "I hear. Go on."},
		"what is provisional, but nothing": {[]*amandaai.TranscriptChunk{provisional("thigh"), final("")}, ""},
		"nothing between two parts":        {[]*amandaai.TranscriptChunk{final("I"), final(""), final("hear.")}, "I hear."},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := voiceInProcess(t, voice{hear: hears(nil, tt.chunks...)}, aigrpc.Deadlines{}).Transcribe(t.Context(), "ogg", "", recording("OggS"))
			if got != tt.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestTranscriptsAreMended(t *testing.T) {
	t.Parallel()
	// Field 1, length-delimited, is tag 0x0a; field 2, varint, is 0x10.
	v := voice{hear: func(s hearing) error {
		for _, wire := range []raw{"\x0a\x04a\x00\xffb\x10\x01", "\xf8\x06\x05", "\x0a\x01c\x10\x01"} {
			if err := s.SendMsg(wire); err != nil {
				return err
			}
		}
		return nil
	}}
	address := serveVoice(t, v, grpc.ForceServerCodecV2(newRawCodec()))
	got, err := dialVoice(t, aigrpc.Config{Target: address}).Transcribe(t.Context(), "ogg", "", recording("OggS"))
	if want := "a\uFFFD\uFFFDb c"; got != want || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// A backend that knows enough ends the call while the recording still arrives.
func TestABackendMayEndBeforeTheRecording(t *testing.T) {
	t.Parallel()
	client := voiceInProcess(t, voice{hear: func(s hearing) error { return s.Send(final("Enough.")) }}, aigrpc.Deadlines{})
	got, err := client.Transcribe(t.Context(), "ogg", "", func(ctx context.Context) ([]byte, error) {
		<-ctx.Done() // nothing more comes
		return nil, ctx.Err()
	})
	if got != "Enough." || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestTheAudioIsHeardWhileItArrives(t *testing.T) {
	t.Parallel()
	heard := make(chan string)
	client := voiceInProcess(t, voice{hear: func(s hearing) error {
		for {
			chunk, err := s.Recv()
			if errors.Is(err, io.EOF) {
				return s.Send(final("Yes."))
			}
			if err != nil {
				return err
			}
			heard <- string(chunk.GetData())
		}
	}}, aigrpc.Deadlines{})
	sent := 0
	text, err := client.Transcribe(t.Context(), "ogg", "", func(context.Context) ([]byte, error) {
		if sent > 0 {
			if got := within(t, heard); got != "piece" {
				t.Errorf("got %q", got)
			}
		}
		if sent++; sent > 3 {
			return nil, io.EOF
		}
		return []byte("piece"), nil
	})
	if text != "Yes." || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestSynthesize(t *testing.T) {
	t.Parallel()
	asked := make(chan *amandaai.SpeechRequest, 1)
	v := voice{speak: func(r *amandaai.SpeechRequest, s speech) error {
		asked <- r
		return speaks(nil, "ID3", "", "audio")(r, s)
	}}
	var got []string
	client := dialVoice(t, aigrpc.Config{Target: serveVoice(t, v)})
	err := client.Synthesize(t.Context(), stream.Speech{Text: "Yes.", Voice: "slt", Speed: 1.5, Format: "mp3"}, func(audio []byte) error {
		got = append(got, string(audio))
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(got, []string{"ID3", "audio"}); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
	want := &amandaai.SpeechRequest{Text: "Yes.", Voice: "slt", Speed: 1.5, Format: "mp3"}
	if diff := cmp.Diff(<-asked, want, protocmp.Transform()); diff != "" {
		t.Errorf("the request: got -, want +\n%s", diff)
	}
}

func TestVoicesTellFailures(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err  error
		want failure
	}{
		"a backend that is down":        {status.Error(codes.Unavailable, "x"), failure{"voice_unavailable", true}},
		"a backend without a voice":     {status.Error(codes.Unimplemented, "x"), failure{"voice_unavailable", false}},
		"a backend that takes too long": {status.Error(codes.DeadlineExceeded, "x"), failure{"voice_timeout", true}},
		"a backend that is busy":        {status.Error(codes.ResourceExhausted, "x"), failure{"voice_busy", true}},
		"a message that is too large":   {status.Error(codes.ResourceExhausted, "grpc: received message larger than max"), failure{"voice_error", false}},
		"a backend with a fault":        {status.Error(codes.Internal, "x"), failure{"voice_error", true}},
		"a backend that breaks off":     {status.Error(codes.Aborted, "x"), failure{"voice_error", true}},
		"a backend that refuses":        {status.Error(codes.InvalidArgument, "s3cret"), failure{"voice_refused", false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := dialVoice(t, aigrpc.Config{Target: serveVoice(t, voice{
				hear:  hears(tt.err, provisional("Half")),
				speak: speaks(tt.err, "half"),
			})})
			text, err := client.Transcribe(t.Context(), "ogg", "", recording("OggS"))
			if got := failureOf(err); got != tt.want || text != "" {
				t.Errorf("hearing: got %q, %+v, want %+v: %v", text, got, tt.want, err)
			}
			err = client.Synthesize(t.Context(), stream.Speech{Text: "Yes."}, func([]byte) error { return nil })
			if got := failureOf(err); got != tt.want {
				t.Errorf("speaking: got %+v, want %+v: %v", got, tt.want, err)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the backend's words are passed on: %v", err)
			}
		})
	}
}

func TestAnswersThatAreNone(t *testing.T) {
	t.Parallel()
	piece := strings.Repeat("x", 1<<20)
	flood := voice{
		hear: func(s hearing) error {
			for {
				if err := s.Send(final(piece[:1000])); err != nil {
					return err
				}
			}
		},
		speak: func(_ *amandaai.SpeechRequest, s speech) error {
			for {
				if err := s.Send(&amandaai.AudioChunk{Data: []byte(piece)}); err != nil {
					return err
				}
			}
		},
	}
	want := failure{"voice_error", true}
	t.Run("no audio", func(t *testing.T) {
		t.Parallel()
		client := voiceInProcess(t, voice{speak: speaks(nil, "", "")}, aigrpc.Deadlines{})
		if err := client.Synthesize(t.Context(), stream.Speech{}, func([]byte) error { return nil }); failureOf(err) != want {
			t.Errorf("got %v, want %+v", err, want)
		}
	})
	t.Run("audio without end", func(t *testing.T) {
		t.Parallel()
		size := 0
		client := voiceInProcess(t, flood, aigrpc.Deadlines{})
		err := client.Synthesize(t.Context(), stream.Speech{}, func(audio []byte) error { size += len(audio); return nil })
		if failureOf(err) != want || size != 256<<20 {
			t.Errorf("got %v after %d bytes, want %+v", err, size, want)
		}
	})
	t.Run("a transcript without end", func(t *testing.T) {
		t.Parallel()
		text, err := voiceInProcess(t, flood, aigrpc.Deadlines{}).Transcribe(t.Context(), "ogg", "", recording("OggS"))
		if failureOf(err) != want || text != "" {
			t.Errorf("got %d bytes and %v, want %+v", len(text), err, want)
		}
	})
	t.Run("a panic", func(t *testing.T) {
		t.Parallel()
		client := voiceInProcess(t, voice{hear: func(hearing) error { panic("s3cret") }}, aigrpc.Deadlines{})
		if _, err := client.Transcribe(t.Context(), "ogg", "", recording("OggS")); failureOf(err) != want {
			t.Errorf("got %v, want %+v", err, want)
		}
	})
}

func TestWhoeverAsksEndsTheCall(t *testing.T) {
	t.Parallel()
	own := errors.New("own")
	left := make(chan struct{}, 8)
	waits := voice{
		hear: func(s hearing) error {
			<-s.Context().Done()
			left <- struct{}{}
			return nil // as if all were well
		},
		speak: func(_ *amandaai.SpeechRequest, s speech) error {
			_ = s.Send(&amandaai.AudioChunk{Data: []byte("a")})
			<-s.Context().Done()
			left <- struct{}{}
			return nil
		},
	}
	client := voiceInProcess(t, waits, aigrpc.Deadlines{})
	ctx, cancel := context.WithCancel(t.Context())
	for name, tt := range map[string]struct {
		call func() error
		want error
	}{
		"the recording cannot be read": {func() error {
			first := recording("OggS")
			_, err := client.Transcribe(t.Context(), "ogg", "", func(ctx context.Context) ([]byte, error) {
				if piece, err := first(ctx); err == nil {
					return piece, nil
				}
				return nil, own
			})
			return err
		}, own},
		"the audio is not wanted": {func() error {
			return client.Synthesize(t.Context(), stream.Speech{}, func([]byte) error { return own })
		}, own},
		"the speaker leaves": {func() error {
			_, err := client.Transcribe(ctx, "ogg", "", func(ctx context.Context) ([]byte, error) {
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			})
			return err
		}, context.Canceled},
		"the listener leaves": {func() error {
			ctx, cancel := context.WithCancel(t.Context())
			return client.Synthesize(ctx, stream.Speech{}, func([]byte) error { cancel(); return nil })
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			if err := tt.call(); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	for range 3 { // the one that left first may never have asked
		within(t, left)
	}
}

// What follows is in synthetic time, where nothing takes any unless it waits.

func TestTheDeadlinesOfVoices(t *testing.T) {
	t.Parallel()
	deadlines := aigrpc.Deadlines{FirstChunk: 40 * time.Second, Chunk: 10 * time.Second, Reply: 60 * time.Second}
	wait := func(ctx context.Context, d time.Duration) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
	whole := hears(nil)
	timeout := failure{"voice_timeout", true}
	transcribe := func(slow time.Duration) func(*aigrpc.Voice) error {
		return func(v *aigrpc.Voice) error {
			pieces := recording("a", "b", "c")
			_, err := v.Transcribe(context.Background(), "ogg", "", func(ctx context.Context) ([]byte, error) {
				wait(ctx, slow)
				return pieces(ctx)
			})
			return err
		}
	}
	synthesize := func(slow time.Duration) func(*aigrpc.Voice) error {
		return func(v *aigrpc.Voice) error {
			return v.Synthesize(context.Background(), stream.Speech{}, func([]byte) error { time.Sleep(slow); return nil })
		}
	}
	for name, tt := range map[string]struct {
		voice voice
		call  func(*aigrpc.Voice) error
		want  failure
		took  time.Duration
	}{
		"a recording that drips is no fault of the backend": {
			voice{hear: whole}, transcribe(time.Hour), failure{}, 4 * time.Hour,
		},
		"a transcript that does not begin": {
			voice{hear: func(s hearing) error { _ = whole(s); wait(s.Context(), time.Hour); return nil }},
			transcribe(0), timeout, 40 * time.Second,
		},
		"a transcript that pauses": {
			voice{hear: func(s hearing) error {
				_ = whole(s)
				_ = s.Send(provisional("I"))
				wait(s.Context(), time.Hour)
				return nil
			}},
			transcribe(0), timeout, 10 * time.Second,
		},
		"a transcript that takes its time": {
			voice{hear: func(s hearing) error {
				_ = whole(s)
				for range 5 {
					wait(s.Context(), 9*time.Second)
					_ = s.Send(provisional("I"))
				}
				return nil
			}},
			transcribe(0),
			failure{},
			45 * time.Second,
		},
		"a transcript without end": {
			voice{hear: func(s hearing) error {
				_ = whole(s)
				for s.Context().Err() == nil {
					wait(s.Context(), 9*time.Second)
					_ = s.Send(provisional("I"))
				}
				return nil
			}},
			transcribe(0), timeout, 60 * time.Second,
		},
		"a backend that does not take the recording": {
			voice{hear: func(s hearing) error { <-s.Context().Done(); return nil }},
			func(v *aigrpc.Voice) error {
				piece := make([]byte, 1<<20)
				_, err := v.Transcribe(context.Background(), "ogg", "", func(context.Context) ([]byte, error) { return piece, nil })
				return err
			}, timeout, 10 * time.Second,
		},
		"speech that does not begin": {
			voice{speak: func(_ *amandaai.SpeechRequest, s speech) error { wait(s.Context(), time.Hour); return nil }},
			synthesize(0), timeout, 40 * time.Second,
		},
		"speech that pauses": {
			voice{speak: func(r *amandaai.SpeechRequest, s speech) error {
				_ = speaks(nil, "a")(r, s)
				wait(s.Context(), time.Hour)
				return nil
			}},
			synthesize(0), timeout, 10 * time.Second,
		},
		"a listener who takes his time": {
			voice{speak: speaks(nil, "a", "b", "c")}, synthesize(time.Hour), failure{}, 3 * time.Hour,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				client, err := aigrpc.InProcessVoice(tt.voice, deadlines, slog.New(slog.DiscardHandler))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				began := time.Now()
				err = tt.call(client)
				if got, took := failureOf(err), time.Since(began); got != tt.want || took != tt.took {
					t.Errorf("got %+v after %v, want %+v after %v: %v", got, took, tt.want, tt.took, err)
				}
			})
		})
	}
}

func TestAVoiceThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		v := voice{speak: func(r *amandaai.SpeechRequest, s speech) error {
			if calls++; calls <= 10 { // each call is tried twice
				return status.Error(codes.Unavailable, "down")
			}
			return speaks(nil, "a")(r, s)
		}}
		client, err := aigrpc.InProcessVoice(v, aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		speak := func() failure {
			return failureOf(client.Synthesize(t.Context(), stream.Speech{}, func([]byte) error { return nil }))
		}
		down := failure{"voice_unavailable", true}
		for i := range 7 {
			if got := speak(); got != down {
				t.Errorf("%d: got %+v, want %+v", i, got, down)
			}
		}
		if calls != 10 {
			t.Errorf("the backend was asked %d times, want 10", calls)
		}
		time.Sleep(2100 * time.Millisecond)
		if got := speak(); got != (failure{}) {
			t.Errorf("when it is back: got %+v", got)
		}
	})
}

// FuzzHear holds the decoder of transcripts against proto.Unmarshal.
func FuzzHear(f *testing.F) {
	for _, c := range []*amandaai.TranscriptChunk{{}, final("I hear. 🙂"), provisional("a\x00b")} {
		b, err := proto.Marshal(c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, b := range []string{"\x0a\x01a\x0a\x01b", "\x08\x05", "\x12\x01a", "\x33\x08\x01\x34", "\x00\x00", "\x0a\x05a", "\x0a\x01\xff"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, wire []byte) {
		var message amandaai.TranscriptChunk
		wrong := proto.Unmarshal(wire, &message)
		text, last, err := aigrpc.Hear(wire)
		switch {
		case wrong != nil && (err != nil || strings.Contains(wrong.Error(), "UTF-8")): // which is mended here
			if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
				t.Errorf("got %q", text)
			}
		case (wrong != nil) != (err != nil):
			t.Errorf("got %v, want %v", err, wrong)
		case text != strings.ReplaceAll(message.GetText(), "\x00", "\uFFFD") || last != message.GetFinal():
			t.Errorf("got %q, %v, want %v", text, last, &message)
		}
	})
}
