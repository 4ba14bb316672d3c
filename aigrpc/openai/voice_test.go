package openai_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/openai"
)

// voiceOf returns a client of a voice that asks the server which handle is.
func voiceOf(t *testing.T, handle http.HandlerFunc) amandaai.VoiceServiceClient {
	t.Helper()
	model := httptest.NewServer(handle)
	t.Cleanup(model.Close)
	return voiceAt(t, model.URL+"/v1")
}

func voiceAt(t *testing.T, baseURL string) amandaai.VoiceServiceClient {
	t.Helper()
	voice, err := openai.NewVoice(openai.VoiceConfig{
		BaseURL: baseURL, APIKey: "s3cret", TranscribeModel: "whisper-1", SpeechModel: "gpt-4o-mini-tts", Voice: "alloy",
	})
	if err != nil {
		t.Fatal(err)
	}
	server, pipe := grpc.NewServer(grpc.WaitForHandlers(true)), bufconn.Listen(1<<20)
	amandaai.RegisterVoiceServiceServer(server, voice)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(pipe) })
	conn, err := grpc.NewClient("passthrough:///voice", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		server.Stop()
		serving.Wait()
		if err := voice.Close(); err != nil {
			t.Error(err)
		}
	})
	return amandaai.NewVoiceServiceClient(conn)
}

// transcribe sends a recording and returns the transcript.
func transcribe(ctx context.Context, voice amandaai.VoiceServiceClient, chunks ...*amandaai.AudioChunk) (string, error) {
	hearing, err := voice.Transcribe(ctx)
	if err != nil {
		return "", err
	}
	for _, c := range chunks {
		if hearing.Send(c) != nil {
			break // Recv tells why
		}
	}
	_ = hearing.CloseSend()
	return transcript(hearing)
}

func transcript(hearing grpc.BidiStreamingClient[amandaai.AudioChunk, amandaai.TranscriptChunk]) (string, error) {
	var text string
	for {
		chunk, err := hearing.Recv()
		if errors.Is(err, io.EOF) {
			return text, nil
		}
		if err != nil {
			return text, err
		}
		if !chunk.GetFinal() {
			return text, errors.New("a part is not final")
		}
		text += chunk.GetText()
	}
}

func synthesize(ctx context.Context, voice amandaai.VoiceServiceClient, r *amandaai.SpeechRequest) (string, error) {
	speech, err := voice.Synthesize(ctx, r)
	if err != nil {
		return "", err
	}
	var audio strings.Builder
	for {
		chunk, err := speech.Recv()
		if errors.Is(err, io.EOF) {
			return audio.String(), nil
		}
		if err != nil {
			return audio.String(), err
		}
		audio.Write(chunk.GetData())
	}
}

// The requests as the API reference of OpenAI has them, createTranscription and
// createSpeech.
func TestATranscriptionIsAskedFor(t *testing.T) {
	t.Parallel()
	type part struct{ Name, File, Type, Value string }
	for name, tt := range map[string]struct {
		format, language string
		want             []part
	}{
		"webm": {"webm", "", []part{{"file", "recording.webm", "audio/webm", "one two"}, {"model", "", "", "whisper-1"}, {"response_format", "", "", "json"}}},
		"mp3":  {"mp3", "", []part{{"file", "recording.mp3", "audio/mpeg", "one two"}, {"model", "", "", "whisper-1"}, {"response_format", "", "", "json"}}},
		"wav in a language": {"wav", "de", []part{
			{"file", "recording.wav", "audio/wav", "one two"},
			{"model", "", "", "whisper-1"},
			{"language", "", "", "de"},
			{"response_format", "", "", "json"},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []part
			voice := voiceOf(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/audio/transcriptions" || r.Header.Get("Authorization") != "Bearer s3cret" {
					t.Errorf("asked %s by %q", r.URL.Path, r.Header.Get("Authorization"))
				}
				_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
				if err != nil {
					t.Error(err)
				}
				for parts := multipart.NewReader(r.Body, params["boundary"]); ; {
					p, err := parts.NextPart()
					if errors.Is(err, io.EOF) {
						break
					}
					if err != nil {
						t.Error(err)
						return
					}
					value, _ := io.ReadAll(p)
					got = append(got, part{p.FormName(), p.FileName(), p.Header.Get("Content-Type"), string(value)})
				}
				w.Header().Set("Content-Type", "application/json")
				_, _ = io.WriteString(w, `{"text":"I am Zoë.","usage":{"type":"duration","seconds":3}}`)
			})
			text, err := transcribe(t.Context(), voice, &amandaai.AudioChunk{Data: []byte("one"), Format: tt.format, Language: tt.language}, &amandaai.AudioChunk{Data: []byte(" two")})
			if text != "I am Zoë." || err != nil {
				t.Errorf("got %q, %v", text, err)
			}
			byName := cmp.Transformer("byName", func(all []part) map[string]part {
				m := make(map[string]part)
				for _, p := range all {
					m[p.Name] = p
				}
				return m
			})
			if diff := cmp.Diff(got, tt.want, byName); diff != "" {
				t.Errorf("the form: got -, want +\n%s", diff)
			}
		})
	}
}

// The server reads the first piece before the second one is recorded.
func TestARecordingGoesOnAsItArrives(t *testing.T) {
	t.Parallel()
	read := make(chan string)
	voice := voiceOf(t, func(w http.ResponseWriter, r *http.Request) {
		_, params, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		p, err := multipart.NewReader(r.Body, params["boundary"]).NextPart()
		if err != nil {
			t.Error(err)
			return
		}
		buf := make([]byte, 5<<10)
		for range 3 {
			if _, err := io.ReadFull(p, buf); err != nil {
				t.Error(err)
			}
			read <- string(buf[:5])
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"text":"Yes."}`)
	})
	hearing, err := voice.Transcribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// The reader of a form looks for the boundary ahead of what it gives.
	piece := strings.Repeat("x", 8<<10)
	for range 3 {
		if err := hearing.Send(&amandaai.AudioChunk{Data: []byte(piece), Format: "ogg"}); err != nil {
			t.Fatal(err)
		}
		if got := within(t, read); got != "xxxxx" {
			t.Errorf("got %q", got)
		}
	}
	if err := hearing.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if text, err := transcript(hearing); text != "Yes." || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
}

func TestFailedTranscriptions(t *testing.T) {
	t.Parallel()
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	for name, tt := range map[string]struct {
		handle http.HandlerFunc
		want   told
	}{
		"a key that is refused":       {says(401, `{"error":{"code":"invalid_api_key"}}`), told{codes.FailedPrecondition, "BAD_KEY", 0}},
		"a server without the route":  {says(404, "404 page not found"), told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"too many requests":           {says(429, `{"error":{"type":"requests"}}`), told{codes.ResourceExhausted, "BUSY", 0}},
		"a recording that is no good": {says(400, `{"error":{"message":"Invalid file format.","type":"invalid_request_error"}}`), told{codes.InvalidArgument, "BAD_REQUEST", 0}},
		"a server with a fault":       {says(500, ""), told{codes.Unavailable, "SERVER_DOWN", 0}},
		"no JSON":                     {says(200, "<html>"), told{codes.Aborted, "MALFORMED", 0}},
		"JSON without a text":         {says(200, `{"texts":["a"]}`), told{codes.Aborted, "MALFORMED", 0}},
		"a text that is none":         {says(200, `{"text":{"a":1}}`), told{codes.Aborted, "MALFORMED", 0}},
		"nothing":                     {says(200, ""), told{codes.Aborted, "MALFORMED", 0}},
		"far too much":                {says(200, `{"text":"`+strings.Repeat("x", 5<<20)+`"}`), told{codes.Aborted, "MALFORMED", 0}},
		"an answer that breaks off": {func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, `{"text":"Yes`)
		}, told{codes.Aborted, "BROKE_OFF", 0}},
		"a refusal before the recording is read": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(413)
		}, told{codes.InvalidArgument, "BAD_REQUEST", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text, err := transcribe(t.Context(), voiceOf(t, tt.handle), &amandaai.AudioChunk{Data: []byte("OggS"), Format: "ogg"})
			if got := toldBy(err); got != tt.want || text != "" {
				t.Errorf("got %q, %+v, want %+v: %v", text, got, tt.want, err)
			}
		})
	}
	t.Run("a server that is not there", func(t *testing.T) {
		t.Parallel()
		_, err := transcribe(t.Context(), voiceAt(t, "http://127.0.0.1:1"), &amandaai.AudioChunk{Format: "ogg"})
		if got, want := toldBy(err), (told{codes.Unavailable, "UNREACHABLE", 0}); got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	})
	t.Run("a format that is none", func(t *testing.T) {
		t.Parallel()
		_, err := transcribe(t.Context(), voiceAt(t, "http://127.0.0.1:1"), &amandaai.AudioChunk{Format: "exe"})
		if got, want := toldBy(err), (told{Code: codes.InvalidArgument}); got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	})
}

// Who leaves ends the request, while the recording arrives and afterwards.
func TestLeavingEndsTheRequest(t *testing.T) {
	t.Parallel()
	for name, whole := range map[string]bool{"while the recording arrives": false, "when it is whole": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, ended := make(chan struct{}), make(chan struct{})
			voice := voiceOf(t, func(_ http.ResponseWriter, r *http.Request) {
				close(asked)
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				close(ended)
			})
			ctx, cancel := context.WithCancel(t.Context())
			hearing, err := voice.Transcribe(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := hearing.Send(&amandaai.AudioChunk{Data: make([]byte, 100<<10), Format: "ogg"}); err != nil {
				t.Fatal(err)
			}
			if whole {
				_ = hearing.CloseSend()
			}
			within(t, asked)
			cancel()
			if _, err := hearing.Recv(); toldBy(err).Code != codes.Canceled {
				t.Errorf("got %v, want %v", err, codes.Canceled)
			}
			within(t, ended)
		})
	}
}

func TestSpeechIsAskedFor(t *testing.T) {
	t.Parallel()
	long := strings.TrimSpace(strings.Repeat("I hear you, and it is all right. ", 200)) // 6,599 characters
	request := func(text, voice, format string) map[string]any {
		return map[string]any{"model": "gpt-4o-mini-tts", "input": text, "voice": voice, "response_format": format}
	}
	faster := request("Yes.", "nova", "opus")
	faster["speed"] = 1.5
	for name, tt := range map[string]struct {
		request *amandaai.SpeechRequest
		want    []any
		audio   string
	}{
		"mp3":                         {&amandaai.SpeechRequest{Text: "Yes.", Format: "mp3"}, []any{request("Yes.", "alloy", "mp3")}, "audio"},
		"wav":                         {&amandaai.SpeechRequest{Text: "Yes.", Format: "wav"}, []any{request("Yes.", "alloy", "wav")}, "audio"},
		"ogg, by another one, faster": {&amandaai.SpeechRequest{Text: "Yes.", Voice: "nova", Speed: 1.5, Format: "ogg"}, []any{faster}, "audio"},
		"without the marks":           {&amandaai.SpeechRequest{Text: "**Yes.**", Format: "mp3"}, []any{request("Yes.", "alloy", "mp3")}, "audio"},
		"a long text": {
			&amandaai.SpeechRequest{Text: long, Format: "mp3"},
			[]any{request(long[:33*124-1], "alloy", "mp3"), request(long[33*124:], "alloy", "mp3")},
			"audioaudio",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []any
			voice := voiceOf(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/v1/audio/speech" || r.Header.Get("Authorization") != "Bearer s3cret" {
					t.Errorf("asked %s by %q", r.URL.Path, r.Header.Get("Authorization"))
				}
				var body any
				if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				got = append(got, body)
				w.Header().Set("Content-Type", "audio/mpeg")
				_, _ = io.WriteString(w, "audio")
			})
			audio, err := synthesize(t.Context(), voice, tt.request)
			if audio != tt.audio || err != nil {
				t.Errorf("got %q, %v, want %q", audio, err, tt.audio)
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("the requests: got -, want +\n%s", diff)
			}
		})
	}
}

func TestSpeechComesAsItIsMade(t *testing.T) {
	t.Parallel()
	more := make(chan struct{})
	voice := voiceOf(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "first")
		_ = http.NewResponseController(w).Flush()
		<-more
		_, _ = io.WriteString(w, strings.Repeat("x", 9<<20))
	})
	speech, err := voice.Synthesize(t.Context(), &amandaai.SpeechRequest{Text: "Yes.", Format: "mp3"})
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := speech.Recv()
	if err != nil || string(chunk.GetData()) != "first" {
		t.Fatalf("got %q, %v", chunk.GetData(), err)
	}
	close(more)
	size := 0
	for {
		chunk, err := speech.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		size += len(chunk.GetData())
	}
	if size != 9<<20 {
		t.Errorf("got %d bytes more, want %d", size, 9<<20)
	}
}

func TestFailedSpeech(t *testing.T) {
	t.Parallel()
	said := &amandaai.SpeechRequest{Text: "Yes.", Format: "mp3"}
	says := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = io.WriteString(w, body) }
	}
	for name, tt := range map[string]struct {
		handle  http.HandlerFunc
		request *amandaai.SpeechRequest
		audio   string
		want    told
	}{
		"a voice that it does not have": {says(400, `{"error":{"message":"Input should be 'nova', 'alloy'"}}`), said, "", told{codes.InvalidArgument, "BAD_REQUEST", 0}},
		"a server without the route":    {says(404, ""), said, "", told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"a server that is overloaded":   {says(503, ""), said, "", told{codes.Unavailable, "SERVER_DOWN", 0}},
		"nothing":                       {says(200, ""), said, "", told{codes.Aborted, "MALFORMED", 0}},
		"audio that breaks off": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = io.WriteString(w, "half")
		}, said, "half", told{codes.Aborted, "BROKE_OFF", 0}},
		"WebM, which it has not":       {says(200, "audio"), &amandaai.SpeechRequest{Text: "Yes.", Format: "webm"}, "", told{Code: codes.InvalidArgument}},
		"too fast":                     {says(200, "audio"), &amandaai.SpeechRequest{Text: "Yes.", Format: "mp3", Speed: 5}, "", told{Code: codes.InvalidArgument}},
		"no words":                     {says(200, "audio"), &amandaai.SpeechRequest{Text: "...", Format: "mp3"}, "", told{Code: codes.InvalidArgument}},
		"a WAV file of several others": {says(200, "audio"), &amandaai.SpeechRequest{Text: strings.Repeat("Yes. ", 1000), Format: "wav"}, "", told{Code: codes.InvalidArgument}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			audio, err := synthesize(t.Context(), voiceOf(t, tt.handle), tt.request)
			if got := toldBy(err); got != tt.want || audio != tt.audio {
				t.Errorf("got %q, %+v, want %q, %+v: %v", audio, got, tt.audio, tt.want, err)
			}
		})
	}
}

func TestNewVoiceRefuses(t *testing.T) {
	t.Parallel()
	good := openai.VoiceConfig{TranscribeModel: "a", SpeechModel: "b", Voice: "c"}
	with := func(change func(*openai.VoiceConfig)) openai.VoiceConfig {
		c := good
		change(&c)
		return c
	}
	for name, tt := range map[string]struct {
		config openai.VoiceConfig
		want   error
	}{
		"a URL that is none":        {with(func(c *openai.VoiceConfig) { c.BaseURL = "localhost:1" }), openai.ErrURL},
		"a key with a space":        {with(func(c *openai.VoiceConfig) { c.APIKey = "a b" }), openai.ErrKey},
		"no model that hears":       {with(func(c *openai.VoiceConfig) { c.TranscribeModel = "" }), openai.ErrVoice},
		"no model that speaks":      {with(func(c *openai.VoiceConfig) { c.SpeechModel = "" }), openai.ErrVoice},
		"no voice":                  {with(func(c *openai.VoiceConfig) { c.Voice = "" }), openai.ErrVoice},
		"nothing that is as it may": {good, nil},
	} {
		if _, err := openai.NewVoice(tt.config); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", name, err, tt.want)
		}
	}
}
