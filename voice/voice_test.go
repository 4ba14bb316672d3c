package voice_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
	"parley/voice"
)

// Each format is told by the bytes that its specification begins a file with:
// EBML (RFC 8794, section 8.1) with the document type of WebM, RIFF, Ogg (RFC
// 3533, section 6) with Opus (RFC 7845, section 5.1), ID3, and a frame of MPEG 1
// layer III without one.
func TestSniff(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ head, want string }{
		"WebM":                   {"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x84webm\x42\x87\x81\x04", voice.WebM},
		"Matroska that is none":  {"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82\x88matroska\x42\x87\x81\x04", ""},
		"WAV":                    {"RIFF\x24\x00\x00\x00WAVEfmt ", voice.WAV},
		"AVI, RIFF too":          {"RIFF\x24\x00\x00\x00AVI LIST", ""},
		"Ogg with Opus":          {"OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00\x05\x06\x07\x08\x01\x13OpusHead\x01\x01", voice.Ogg},
		"Ogg with Vorbis":        {"OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00\x05\x06\x07\x08\x01\x1e\x01vorbis\x00\x00", voice.Ogg},
		"Ogg with a film":        {"OggS\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x02\x03\x04\x00\x00\x00\x00\x05\x06\x07\x08\x01\x2a\x80theora\x03\x02", ""},
		"MP3 with ID3":           {"ID3\x04\x00\x00\x00\x00\x00\x23TSSE", voice.MP3},
		"MP3 without":            {"\xff\xfb\x90\x64\x00\x00\x00\x00", voice.MP3},
		"HTML":                   {"<!DOCTYPE html><html><body>RIFF", ""},
		"a program":              {"\x7fELF\x02\x01\x01\x00", ""},
		"text":                   {"hello", ""},
		"nothing":                {"", ""},
		"half a head":            {"RIFF\x24\x00", ""},
		"WAV behind a text":      {" RIFF\x24\x00\x00\x00WAVEfmt ", ""},
		"AAC, like MP3 to many":  {"\xff\xf1\x50\x80\x00\x1f\xfc", ""},
		"an image":               {"\x89PNG\r\n\x1a\n", ""},
		"a ZIP that says so too": {"PK\x03\x04WAVE", ""},
	} {
		if got := voice.Sniff([]byte(test.head)); got != test.want {
			t.Errorf("%s: got %q, want %q", name, got, test.want)
		}
	}
}

func FuzzSniff(f *testing.F) {
	for _, head := range []string{"RIFF\x24\x00\x00\x00WAVEfmt ", "OggS\x00", "\x1a\x45\xdf\xa3", "ID3", "\xff\xfb", "<html>"} {
		f.Add([]byte(head))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		switch voice.Sniff(head) {
		case "":
		case voice.WAV:
			if !bytes.HasPrefix(head, []byte("RIFF")) {
				t.Errorf("%q is WAV", head)
			}
		case voice.Ogg:
			if !bytes.HasPrefix(head, []byte("OggS")) {
				t.Errorf("%q is Ogg", head)
			}
		case voice.WebM:
			if !bytes.HasPrefix(head, []byte("\x1a\x45\xdf\xa3")) {
				t.Errorf("%q is WebM", head)
			}
		case voice.MP3:
			if !bytes.HasPrefix(head, []byte("ID3")) && (len(head) < 2 || head[0] != 0xff || head[1]&0xe0 != 0xe0) {
				t.Errorf("%q is MP3", head)
			}
		}
	})
}

func TestAGateLetsSoManyIn(t *testing.T) {
	t.Parallel()
	g := voice.NewGate(3, 2)
	for i, step := range []struct {
		userID int64
		want   error
	}{{1, nil}, {1, nil}, {1, voice.ErrTooMany}, {2, nil}, {2, voice.ErrBusy}, {3, voice.ErrBusy}} {
		if err := g.Enter(step.userID); !errors.Is(err, step.want) {
			t.Errorf("step %d: got %v, want %v", i, err, step.want)
		}
	}
	g.Leave(1)
	if err := g.Enter(3); err != nil {
		t.Error(err)
	}
	if err := g.Enter(1); !errors.Is(err, voice.ErrBusy) {
		t.Errorf("got %v, want %v", err, voice.ErrBusy)
	}
}

// hears is a Transcriber as one function.
type hears func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error)

func (f hears) Transcribe(ctx context.Context, _, _ string, next func(context.Context) ([]byte, error)) (string, error) {
	return f(ctx, next)
}

// whole hears how long a recording is.
func whole(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
	for size := 0; ; {
		piece, err := next(ctx)
		if errors.Is(err, io.EOF) {
			return fmt.Sprintf("%d bytes", size), nil
		}
		if err != nil {
			return "", err
		}
		size += len(piece)
	}
}

// answers is a backend that says one thing.
type answers string

func (a answers) Admit() error { return nil }

func (a answers) Reply(_ context.Context, _ *stream.Prompt, each func(stream.Chunk) error) error {
	return each(stream.Chunk{Text: string(a), Done: true, FinishReason: "stop"})
}

// hums is who speaks, always the same.
type hums struct{}

func (hums) Synthesize(_ context.Context, _ stream.Speech, each func([]byte) error) error {
	return each([]byte("hum"))
}

// A room is a replica with recordings.
type room struct {
	*voice.Recordings

	db     *models.DB
	userID int64
}

// open makes recordings that are heard by heard, and a user, until the test ends.
func open(t *testing.T, db *models.DB, heard voice.Transcriber, config voice.Config, with ...func(*stream.Config)) room {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	replica := stream.Config{Replica: fmt.Sprint(time.Now().UnixNano()), Lease: time.Hour, Synthesizer: hums{}}
	for _, set := range with {
		set(&replica)
	}
	hub := stream.NewHub(db, answers("Fine."), replica, log)
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { hub.Run(ctx) })
	config.Transcriber, config.PollEvery = heard, 5*time.Millisecond
	r := voice.New(db, hub, config, log)
	t.Cleanup(func() {
		r.Drain()
		hub.Drain(ctx)
		stop()
		running.Wait()
	})
	user := models.User{Email: fmt.Sprintf("%d@example.com", time.Now().UnixNano()), UserName: "ann", PasswordHash: "x"}
	if err := db.CreateUser(t.Context(), &user, &models.DeviceSession{SID: user.Email, ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
		t.Fatal(err)
	}
	return room{r, db, user.ID}
}

// begin keeps a recording of so many bytes.
func (r room) begin(t *testing.T, data []byte) models.Upload {
	t.Helper()
	u, _, err := r.Begin(t.Context(), models.NewUpload{UserID: r.userID})
	if err != nil {
		t.Fatal(err)
	}
	if u, err = r.Append(t.Context(), u, 0, data); err != nil {
		t.Fatal(err)
	}
	return u
}

// finish completes a recording and returns what became of it.
func (r room) finish(t *testing.T, u models.Upload) (string, error) {
	t.Helper()
	u, err := r.Complete(t.Context(), u, models.Completion{})
	if err != nil {
		return "", err
	}
	id, err := r.Await(t.Context(), r.userID, u.ID)
	if err != nil {
		return "", err
	}
	ex, err := r.db.Exchange(t.Context(), r.userID, id)
	return ex.User.Content, err
}

// codeOf is the code of what a try failed with. Who waited for its end has the error
// itself, who came after it only what is kept of it.
func codeOf(err error) string {
	var backend *stream.BackendError
	var kept *voice.Failed
	switch {
	case errors.As(err, &backend):
		return backend.Code
	case errors.As(err, &kept):
		return kept.Code
	}
	return ""
}

func recording(n int) []byte {
	return append([]byte("RIFF\x24\x00\x00\x00WAVEfmt "), make([]byte, n-16)...)
}

// Ten thousand chunks of a few bytes are a recording like any other, in few rows.
func TestTenThousandTinyChunks(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		r := open(t, db, hears(whole), voice.Config{})
		data := recording(30_000)
		u := r.begin(t, data[:3])
		for at := 3; at < len(data); at += 3 {
			var err error
			if u, err = r.Append(t.Context(), u, int64(at), data[at:at+3]); err != nil {
				t.Fatal(err)
			}
		}
		var rows int
		if err := db.Bun().NewRaw("SELECT count(*) FROM upload_chunks").Scan(t.Context(), &rows); err != nil || rows > 4 {
			t.Errorf("they are %d rows (%v)", rows, err)
		}
		if text, err := r.finish(t, u); text != "30000 bytes" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
	})
}

func TestWhatBecomesOfATry(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		failed := &stream.BackendError{Code: stream.CodeVoiceBusy, Retryable: true, Err: io.ErrNoProgress}
		for name, test := range map[string]struct {
			hears hears
			text  string
			err   error
		}{
			"it is heard":            {whole, "1000 bytes", nil},
			"before all has arrived": {func(context.Context, func(context.Context) ([]byte, error)) (string, error) { return "early", nil }, "early", nil},
			"with NUL and broken UTF-8": {func(context.Context, func(context.Context) ([]byte, error)) (string, error) {
				return " a\x00b\xff ", nil
			}, "ab\uFFFD", nil},
			"there are no words in it": {func(context.Context, func(context.Context) ([]byte, error)) (string, error) { return "\t\x00\n", nil }, "", voice.ErrNothingHeard},
			"the service fails": {func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
				_, _ = whole(ctx, next)
				return "", failed
			}, "", failed},
			"it takes longer than it may": {func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
				_, _ = whole(ctx, next)
				<-ctx.Done()
				return "", ctx.Err()
			}, "", &stream.BackendError{Code: stream.CodeVoiceTimeout, Retryable: true, Err: errors.New("the transcript took too long")}},
			"it panics": {func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
				_, _ = whole(ctx, next)
				panic("at the disco")
			}, "", &stream.BackendError{Code: stream.CodeVoiceError}},
		} {
			r := open(t, db, test.hears, voice.Config{Patience: 50 * time.Millisecond})
			text, err := r.finish(t, r.begin(t, recording(1000)))
			var want *stream.BackendError
			if errors.As(test.err, &want) {
				if got := codeOf(err); got != want.Code {
					t.Errorf("%s: got %q (%v), want %q", name, got, err, want.Code)
				}
			} else if !errors.Is(err, test.err) {
				t.Errorf("%s: got %v, want %v", name, err, test.err)
			}
			if diff := cmp.Diff(test.text, text); diff != "" {
				t.Errorf("%s: %s", name, diff)
			}
		}
	})
}

// Whoever asks is told what is in the way of a recording: replies that will have
// ended in a moment, or the day. The first to ask may have waited for the try, those
// who come later know what is kept of it.
func TestARecordingBeyondTheDailyLimit(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, used := range map[string]bool{"running replies": false, "the day": true} {
			r := open(t, db, hears(whole), voice.Config{}, func(c *stream.Config) { c.DailyTokenLimit = 5000 })
			if err := db.RenewReplica(t.Context(), "elsewhere", time.Hour); err != nil {
				t.Fatal(err)
			}
			ex, err := db.AppendTurn(t.Context(), models.NewTurn{
				UserID: r.userID, Content: "question", Owner: "elsewhere", Budget: models.Budget{Answer: 4500, DailyLimit: 5000},
			})
			if err == nil && used {
				err = db.FinishReply(t.Context(), models.ReplyEnd{
					MessageID: ex.Reply.ID, Fence: 1, Content: "x", Status: models.StatusComplete, Usage: &models.Usage{OutputTokens: 4500},
				})
			}
			if err != nil {
				t.Fatal(err)
			}
			u := r.begin(t, recording(1000))
			if _, err := r.finish(t, u); !errors.Is(err, models.ErrDailyLimit) {
				t.Errorf("%s: got %v, want %v", name, err, models.ErrDailyLimit)
			}
			_, err = r.Await(t.Context(), r.userID, u.ID)
			var limit *models.DailyLimit
			if !errors.As(err, &limit) || limit.Limit != 5000 || limit.Running == used || limit.Resets.Before(time.Now()) {
				t.Errorf("%s: got %v (%+v), want %v", name, err, limit, models.ErrDailyLimit)
			}
		}
	})
}

// Who pauses for long is not listened to any more, and heard from the beginning
// when the recording is whole.
func TestARecordingThatPauses(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ended := make(chan string, 4)
		r := open(t, db, hears(func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
			text, err := whole(ctx, next)
			ended <- fmt.Sprint(text, err)
			return text, err
		}), voice.Config{Idle: 20 * time.Millisecond})
		u := r.begin(t, recording(1000))
		if got, want := <-ended, "voice: nothing more of the recording comes"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		u, err := r.Append(t.Context(), u, u.Size, recording(1000))
		if err != nil {
			t.Fatal(err)
		}
		if text, err := r.finish(t, u); text != "2000 bytes" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
	})
}

// What is deleted is not transcribed any longer, on whatever replica that is, and
// who waits for it is told.
func TestARecordingThatIsDeleted(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		began, ended := make(chan struct{}, 2), make(chan error, 2)
		r := open(t, db, hears(func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
			if _, err := whole(ctx, next); err != nil {
				return "", err
			}
			began <- struct{}{}
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return "", ctx.Err()
		}), voice.Config{AdoptEvery: 5 * time.Millisecond})
		elsewhere := open(t, db, hears(whole), voice.Config{})
		for name, drop := range map[string]func(context.Context, int64, int64) error{"here": r.Drop, "elsewhere": elsewhere.Drop} {
			u := r.begin(t, recording(1000))
			told := make(chan error)
			go func() {
				_, err := r.finish(t, u)
				told <- err
			}()
			<-began
			if err := drop(t.Context(), r.userID, u.ID); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, models.ErrStaleOwner) {
				t.Errorf("%s: the transcription ended with %v", name, err)
			}
			if err := <-told; !errors.Is(err, models.ErrNotFound) {
				t.Errorf("%s: got %v, want %v", name, err, models.ErrNotFound)
			}
		}
	})
}

// A try that fails once the recording is another replica's says nothing of it: who
// waits here learns what became of it there.
func TestATryThatFailsAfterItWasTakenOver(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for name, late := range map[string]struct {
			text string
			err  error
		}{
			"the service fails": {"", &stream.BackendError{Code: stream.CodeVoiceTimeout, Retryable: true, Err: io.ErrNoProgress}},
			"nothing is heard":  {"", nil},
		} {
			tries := 0
			r := open(t, db, hears(func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
				text, err := whole(ctx, next)
				if tries++; tries > 1 {
					return text, err
				}
				if _, err := db.Bun().NewRaw("UPDATE uploads SET fence = fence + 1, owner = ''").Exec(t.Context()); err != nil {
					t.Error(err)
				}
				return late.text, late.err
			}), voice.Config{AdoptEvery: time.Hour})
			if text, err := r.finish(t, r.begin(t, recording(1000))); text != "1000 bytes" || err != nil {
				t.Errorf("%s: got %q, %v", name, text, err)
			}
		}
	})
}

// Where there is no place, a recording is heard when it is whole and there is one;
// and if there is none for long, its client is told so.
func TestRecordingsWaitForAPlace(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		began := make(chan struct{}, 4)
		r := open(t, db, hears(func(ctx context.Context, next func(context.Context) ([]byte, error)) (string, error) {
			began <- struct{}{}
			<-release
			return whole(ctx, next)
		}), voice.Config{AtOnce: 1, Queueing: 50 * time.Millisecond})
		first := r.begin(t, recording(1000))
		<-began
		second := r.begin(t, recording(2000))
		if _, err := r.finish(t, second); !errors.Is(err, voice.ErrBusy) {
			t.Errorf("got %v, want %v", err, voice.ErrBusy)
		}
		close(release)
		for want, u := range map[string]models.Upload{"1000 bytes": first, "2000 bytes": second} {
			text, err := r.finish(t, u)
			for errors.Is(err, voice.ErrBusy) {
				text, err = r.finish(t, u)
			}
			if text != want || err != nil {
				t.Errorf("got %q, %v, want %q", text, err, want)
			}
		}
	})
}
