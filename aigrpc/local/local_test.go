package local_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/aigrpc/local"
	"parley/stream"
)

// After the last test there is no goroutine, no child process, and no file.
func TestMain(m *testing.M) {
	if os.Getenv(holding) != "" {
		hold()
	}
	folder, err := os.MkdirTemp("", "local-test-*")
	if err != nil {
		panic(err)
	}
	if err := os.Setenv("TMPDIR", folder); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Println(err)
		code = 1
	}
	if left := children(); len(left) > 0 && code == 0 {
		fmt.Println("processes are left:", left)
		code = 1
	}
	// The tests' own folders are gone by now.
	if left, _ := filepath.Glob(filepath.Join(folder, "*")); len(left) > 0 && code == 0 {
		fmt.Println("files are left:", left)
		code = 1
	}
	_ = os.RemoveAll(folder)
	os.Exit(code)
}

// children lists the processes that this one has started and that still run.
func children() []string {
	var found []string
	lists, _ := filepath.Glob("/proc/self/task/*/children")
	for _, list := range lists {
		pids, _ := os.ReadFile(list) // of a thread that may have ended
		for pid := range strings.FieldsSeq(string(pids)) {
			name, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
			found = append(found, pid+" "+strings.TrimSpace(string(name)))
		}
	}
	return found
}

// newVoice returns a client of the provider, over the gRPC interface that the
// program has it by.
func newVoice(t *testing.T, c local.Config, d aigrpc.Deadlines) *aigrpc.Voice {
	t.Helper()
	provider, err := local.New(t.Context(), c)
	if errors.Is(err, local.ErrPrograms) && os.Getenv("CI") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	voice, err := aigrpc.InProcessVoice(provider, d, slog.New(slog.NewTextHandler(t.Output(), nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := voice.Close(); err != nil {
			t.Error(err)
		}
	})
	return voice
}

// patient are deadlines that a loaded machine keeps.
var patient = aigrpc.Deadlines{FirstChunk: 4 * time.Minute, Chunk: 4 * time.Minute}

// program runs a program with that input and returns what it writes.
func program(t *testing.T, input []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

// encoders are what recorders use: MediaRecorder sends Opus in WebM that has no
// duration, and is written as it is recorded.
var encoders = map[string][]string{
	"webm": {"-c:a", "libopus", "-f", "webm", "-live", "1"},
	"ogg":  {"-c:a", "libopus", "-f", "ogg"},
	"mp3":  {"-c:a", "libmp3lame", "-write_xing", "0", "-id3v2_version", "0", "-f", "mp3"},
	"wav":  {"-c:a", "pcm_s16le", "-f", "wav"},
}

// encode makes a recording of samples: 16 kHz, 16 bits, mono.
func encode(t *testing.T, samples []byte, format string) []byte {
	t.Helper()
	args := []string{"-nostdin", "-loglevel", "error", "-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "pipe:0"}
	return program(t, samples, "ffmpeg", append(append(args, encoders[format]...), "pipe:1")...)
}

// decode returns the samples of a recording.
func decode(t *testing.T, recording []byte, format string) []byte {
	t.Helper()
	return program(t, recording, "ffmpeg", "-nostdin", "-loglevel", "error", "-f", format, "-i", "pipe:0", "-ar", "16000", "-ac", "1", "-f", "s16le", "pipe:1")
}

// spoken returns the samples of sentences spoken by flite, with a pause of a second
// behind each.
func spoken(t *testing.T, sentences ...string) []byte {
	t.Helper()
	var samples []byte
	for _, sentence := range sentences {
		wav := program(t, nil, "flite", "-voice", "slt", "-t", sentence, "-o", "/dev/stdout")
		samples = append(samples, wav[44:]...)
		samples = append(samples, make([]byte, 32000)...)
	}
	return samples
}

// pieces returns a recording in pieces of that size.
func pieces(recording []byte, size int) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		if len(recording) == 0 {
			return nil, io.EOF
		}
		n := min(size, len(recording))
		piece := recording[:n]
		recording = recording[n:]
		return piece, nil
	}
}

// said are sentences as people write to a companion.
var said = []string{
	"Hello, I am not feeling so well today.",
	"My mother is ill and I cannot sleep.",
	"What should I do about my job?",
	"I had a long talk with my brother last night.",
	"Can you help me write a letter to my friend?",
	"Thank you very much, that was good advice.",
}

func TestSpeechIsUnderstoodInAllFormats(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	samples := spoken(t, said[:4]...)
	want := words(strings.Join(said[:4], " "))
	for _, format := range []string{"webm", "ogg", "mp3", "wav"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			recording := encode(t, samples, format)
			text, err := voice.Transcribe(t.Context(), format, "en-US", pieces(recording, 5000))
			if err != nil {
				t.Fatal(err)
			}
			wrong := float64(distance(words(text), want)) / float64(len(want))
			fmt.Printf("local: %4s, %6d bytes: %4.1f %% of %d words wrong\n", format, len(recording), 100*wrong, len(want))
			if wrong > 0.25 {
				t.Errorf("%.0f %% of the words are wrong: got %q, want %q", 100*wrong, words(text), want)
			}
		})
	}
}

// words are those of a text in small letters, without marks.
func words(text string) []string {
	return strings.Fields(strings.Map(func(r rune) rune {
		if strings.ContainsRune(".,?!", r) {
			return -1
		}
		return r
	}, strings.ToLower(text)))
}

// distance is how many words are to be changed, added or dropped (Levenshtein).
func distance(got, want []string) int {
	row := make([]int, len(want)+1)
	for j := range row {
		row[j] = j
	}
	for i, g := range got {
		diagonal := row[0]
		row[0] = i + 1
		for j, w := range want {
			cost := diagonal
			if g != w {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(want)]
}

func TestAGrammarMakesACommandExact(t *testing.T) {
	t.Parallel()
	grammar := filepath.Join(t.TempDir(), "commands.gram")
	const rules = "#JSGF V1.0;\ngrammar commands;\npublic <command> = (open | close | delete) the (chat | window) | read it to me;\n"
	if err := os.WriteFile(grammar, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	voice := newVoice(t, local.Config{Grammar: grammar}, patient)
	for _, command := range []string{"open the chat", "delete the window", "read it to me"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			got, err := voice.Transcribe(t.Context(), "webm", "", pieces(encode(t, spoken(t, command), "webm"), 1<<20))
			if err != nil {
				t.Fatal(err)
			}
			if got != command {
				t.Errorf("got %q, want %q", got, command)
			}
		})
	}
}

// The words of the first sentence are known while the second is not yet recorded.
func TestARecordingIsHeardAsItArrives(t *testing.T) {
	t.Parallel()
	newVoice(t, local.Config{}, patient) // skips where the programs are missing
	provider, err := local.New(t.Context(), local.Config{})
	if err != nil {
		t.Fatal(err)
	}
	hearing, err := amandaai.NewVoiceServiceClient(serve(t, provider)).Transcribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	recording := encode(t, spoken(t, said[0], said[1]), "webm")
	send := func(piece []byte) {
		if err := hearing.Send(&amandaai.AudioChunk{Data: piece, Format: "webm"}); err != nil {
			t.Fatal(err)
		}
	}
	var text string
	hear := func() error {
		chunk, err := hearing.Recv()
		if err == nil {
			text = chunk.GetText()
		}
		return err
	}
	send(recording[:len(recording)*3/4])
	for text == "" {
		if err := hear(); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := words(text), words(said[0]); distance(got, want) > 2 {
		t.Errorf("in the midst of the recording: got %q, want %q", got, want)
	}
	send(recording[len(recording)*3/4:])
	if err := hearing.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for err = nil; err == nil; {
		err = hear()
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if got, want := words(text), words(said[0]+" "+said[1]); distance(got, want) > 4 {
		t.Errorf("at the end: got %q, want %q", got, want)
	}
}

// serve serves a provider in memory until the test ends.
func serve(t *testing.T, provider amandaai.VoiceServiceServer) *grpc.ClientConn {
	t.Helper()
	server, pipe := grpc.NewServer(grpc.WaitForHandlers(true)), bufconn.Listen(1<<20)
	amandaai.RegisterVoiceServiceServer(server, provider)
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
	})
	return conn
}

// failed is what became of a call.
type failed struct {
	Code      string
	Retryable bool
}

func failureOf(err error) failed {
	var f *stream.BackendError
	if errors.As(err, &f) {
		return failed{f.Code, f.Retryable}
	}
	return failed{}
}

func TestRecordingsOfNothing(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	noise := func(filter string) []byte {
		return program(t, nil, "ffmpeg", "-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", filter, "-ar", "16000", "-ac", "1", "-f", "s16le", "pipe:1")
	}
	for name, samples := range map[string][]byte{
		"silence":          make([]byte, 5*32000),
		"hardly a moment":  make([]byte, 640),
		"loud white noise": noise("anoisesrc=d=3:c=white:a=0.5"),
		"pink noise":       noise("anoisesrc=d=3:c=pink:a=0.1"),
		"a hum":            noise("sine=f=50:d=3"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := voice.Transcribe(t.Context(), "ogg", "", pieces(encode(t, samples, "ogg"), 1000))
			if got != "" || err != nil {
				t.Errorf("got %q, %v, want nothing", got, err)
			}
		})
	}
	t.Run("no recording", func(t *testing.T) {
		t.Parallel()
		got, err := voice.Transcribe(t.Context(), "ogg", "", pieces(nil, 1))
		if want := (failed{stream.CodeVoiceRefused, false}); got != "" || failureOf(err) != want {
			t.Errorf("got %q, %v, want %+v", got, err, want)
		}
	})
}

func TestRecordingsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{MaxRecording: 5 * time.Second}, patient)
	sentence := spoken(t, said[0])
	page := []byte("<!DOCTYPE html><html><body>" + strings.Repeat("<p>RIFF WAVEfmt </p>", 5000) + "</body></html>")
	playlist := []byte("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")
	for name, tt := range map[string]struct {
		recording        []byte
		format, language string
	}{
		"HTML that says it is WAV":         {page, "wav", ""},
		"HTML that says it is MP3":         {page, "mp3", ""},
		"WebM that says it is WAV":         {encode(t, sentence, "webm"), "wav", ""},
		"WAV that says it is Ogg":          {encode(t, sentence, "wav"), "ogg", ""},
		"MP3 that says it is WebM":         {encode(t, sentence, "mp3"), "webm", ""},
		"a playlist that says it is MP3":   {playlist, "mp3", ""},
		"a format that is none":            {encode(t, sentence, "wav"), "hls", ""},
		"an option instead of a format":    {encode(t, sentence, "wav"), "wav -i /etc/passwd", ""},
		"another language":                 {encode(t, sentence, "wav"), "wav", "de-DE"},
		"the beginning of a header":        {encode(t, sentence, "webm")[:40], "webm", ""},
		"more than a recording may be":     {encode(t, bytes.Repeat(sentence, 3), "ogg"), "ogg", ""},
		"far more, which is small":         {encode(t, make([]byte, 600*32000), "ogg"), "ogg", ""},
		"a WAV header that promises a lot": {[]byte("RIFF\xff\xff\xff\xffWAVEfmt \xff\xff\xff\x7f"), "wav", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := voice.Transcribe(t.Context(), tt.format, tt.language, pieces(tt.recording, 3000))
			if want := (failed{stream.CodeVoiceRefused, false}); got != "" || failureOf(err) != want {
				t.Errorf("got %q, %v, want %+v", got, err, want)
			}
		})
	}
}

// What came of a recording that breaks off is understood.
func TestATruncatedRecording(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	samples := spoken(t, said[0], said[1])
	for _, format := range []string{"webm", "mp3", "wav"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			recording := encode(t, samples, format)
			text, err := voice.Transcribe(t.Context(), format, "", pieces(recording[:len(recording)*6/10], 4096))
			if err != nil {
				t.Fatal(err)
			}
			if got, want := words(text), words(said[0]); len(got) < len(want) || distance(got[:len(want)], want) > 3 {
				t.Errorf("got %q, want %q first", got, want)
			}
		})
	}
}

// A caller who leaves, and one whose time is over, leave nothing behind: TestMain
// looks for processes, goroutines and files.
func TestACallerWhoLeaves(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	recording := encode(t, spoken(t, said...), "webm")
	t.Run("in the midst of a recording", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		next, n := pieces(recording, 2000), 0
		_, err := voice.Transcribe(ctx, "webm", "", func(ctx context.Context) ([]byte, error) {
			if n++; n == 10 {
				cancel()
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return next(ctx)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
	t.Run("while it is worked on", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		next := pieces(recording, len(recording))
		_, err := voice.Transcribe(ctx, "webm", "", func(ctx context.Context) ([]byte, error) {
			piece, err := next(ctx)
			if errors.Is(err, io.EOF) {
				cancel()
			}
			return piece, err
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
	t.Run("in the midst of an answer", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		enough := errors.New("enough")
		err := voice.Synthesize(ctx, stream.Speech{Text: strings.Repeat(strings.Join(said, " ")+" ", 20), Format: "wav"}, func([]byte) error { return enough })
		if !errors.Is(err, enough) {
			t.Errorf("got %v, want %v", err, enough)
		}
	})
}

func TestAFullPoolIsBusy(t *testing.T) {
	t.Parallel()
	newVoice(t, local.Config{}, patient) // skips where the programs are missing
	provider, err := local.New(t.Context(), local.Config{Calls: 1, Queueing: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	client := amandaai.NewVoiceServiceClient(serve(t, provider))
	recording := encode(t, spoken(t, said[0]), "wav")
	begin := func(ctx context.Context) error {
		hearing, err := client.Transcribe(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if err := hearing.Send(&amandaai.AudioChunk{Data: recording, Format: "wav"}); err != nil {
			t.Fatal(err)
		}
		_, err = hearing.Recv() // a sign of life, from one who has a place
		return err
	}
	ctx, leave := context.WithCancel(t.Context())
	if err := begin(ctx); err != nil {
		t.Fatal(err)
	}
	if err := begin(t.Context()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want %v", err, codes.ResourceExhausted)
	}
	leave()
}

// holding makes the test program one that hears a recording without end.
const holding = "PARLEY_TEST_HOLDING"

// hold hears a recording until it is killed, and says which processes do that.
func hold() {
	provider, err := local.New(context.Background(), local.Config{})
	if err != nil {
		panic(err)
	}
	voice, err := aigrpc.InProcessVoice(provider, patient, slog.New(slog.DiscardHandler))
	if err != nil {
		panic(err)
	}
	sent := false
	_, err = voice.Transcribe(context.Background(), "wav", "", func(ctx context.Context) ([]byte, error) {
		if !sent {
			sent = true
			return []byte("RIFF"), nil
		}
		for len(children()) < 2 {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Println(strings.Join(children(), ","))
		<-ctx.Done()
		return nil, ctx.Err()
	})
	panic(err)
}

// What is killed takes its processes along.
func TestAProgramThatIsKilled(t *testing.T) {
	t.Parallel()
	newVoice(t, local.Config{}, patient) // skips where the programs are missing
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere a process ends when its pipes do")
	}
	program := exec.Command(os.Args[0])
	program.Env = append(os.Environ(), holding+"=1")
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	_ = program.Process.Kill()
	_ = program.Wait()
	if err != nil {
		t.Fatal(err)
	}
	for process := range strings.SplitSeq(strings.TrimSpace(line), ",") {
		pid, name, _ := strings.Cut(process, " ")
		for begin := time.Now(); runs(pid, name); time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatalf("%s runs on", process)
			}
		}
	}
}

// runs reports whether the process runs still.
func runs(pid, name string) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	return err == nil && strings.Contains(string(stat), "("+name+") ") && !strings.Contains(string(stat), ") Z ")
}

// A recording may have pictures, which nobody looks at.
func TestTheVoiceOfAFilm(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	film := program(t, spoken(t, said[0]), "ffmpeg", "-nostdin", "-loglevel", "error",
		"-f", "s16le", "-ar", "16000", "-ac", "1", "-i", "pipe:0", "-f", "lavfi", "-i", "testsrc=d=3:s=64x64:r=5",
		"-c:v", "libvpx", "-c:a", "libopus", "-f", "webm", "pipe:1")
	text, err := voice.Transcribe(t.Context(), "webm", "", pieces(film, 4096))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := words(text), words(said[0]); distance(got, want) > 2 {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	newVoice(t, local.Config{}, patient) // skips where the programs are missing
	for name, tt := range map[string]struct {
		config local.Config
		want   error
	}{
		"a voice that is not there":       {local.Config{Voice: "nobody"}, local.ErrVoice},
		"a path to a voice":               {local.Config{Voice: "/etc/passwd"}, local.ErrVoice},
		"a voice that only says the time": {local.Config{Voice: "awb_time"}, local.ErrVoice},
		"a grammar that is not there":     {local.Config{Grammar: "no/such/file"}, local.ErrGrammar},
		"another voice":                   {local.Config{Voice: "rms"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := local.New(t.Context(), tt.config); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

func TestMissingProgramsAreNamedWithTheirPackages(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := local.New(t.Context(), local.Config{})
	if !errors.Is(err, local.ErrPrograms) {
		t.Fatalf("got %v, want %v", err, local.ErrPrograms)
	}
	for _, want := range []string{"apt-get install ffmpeg pocketsphinx flite", "pocketsphinx_continuous"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
}

// A process has its limits before it reads what a stranger sent.
func TestProcessesAreLimited(t *testing.T) {
	t.Parallel()
	voice := newVoice(t, local.Config{}, patient)
	recording := encode(t, spoken(t, said[0]), "wav")
	next := pieces(recording, 4000)
	seen := make(map[string]string)
	_, err := voice.Transcribe(t.Context(), "wav", "", func(ctx context.Context) ([]byte, error) {
		for _, child := range children() {
			pid, name, _ := strings.Cut(child, " ")
			limits, _ := os.ReadFile(filepath.Join("/proc", pid, "limits"))
			environ, _ := os.ReadFile(filepath.Join("/proc", pid, "environ"))
			if name == "ffmpeg" || strings.HasPrefix(name, "pocketsphinx") {
				seen[name] = string(limits)
			}
			if strings.Contains(string(environ), "TMPDIR=") && strings.HasPrefix(name, "pocketsphinx") {
				t.Errorf("%s knows our environment: %q", name, environ)
			}
		}
		return next(ctx)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 {
		t.Fatal("no process was seen")
	}
	for name, limits := range seen {
		if !strings.Contains(name, "pocketsphinx") { // ffmpeg may be the test's own
			continue
		}
		for _, want := range []string{"Max address space " + strconv.Itoa(1<<30), "Max core file size 0"} {
			if !strings.Contains(strings.Join(strings.Fields(limits), " "), want) {
				t.Errorf("%s: got %s, want %q in it", name, limits, want)
			}
		}
	}
}
