package handlers_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/handlers"
	"parley/models"
	"parley/stream"
	"parley/voice"
)

// hears is a service that transcribes, as one function of the whole recording.
type hears func(recording []byte) (string, error)

// recorded counts what a service was sent, and when.
type recorded struct {
	hears

	mu     sync.Mutex
	calls  int
	ended  int
	pieces int
	bytes  int
	format string
	news   chan struct{} // closed and made anew with every piece
}

func listens(h hears) *recorded { return &recorded{hears: h, news: make(chan struct{})} }

func (s *recorded) Transcribe(ctx context.Context, format, _ string, next func(context.Context) ([]byte, error)) (string, error) {
	s.note(func() { s.calls++; s.format = format })
	defer s.note(func() { s.ended++ })
	var all []byte
	for {
		piece, err := next(ctx)
		if errors.Is(err, io.EOF) {
			return s.hears(all)
		}
		if err != nil {
			return "", err
		}
		all = append(all, piece...)
		s.note(func() { s.pieces++; s.bytes = len(all) })
	}
}

func (s *recorded) note(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
	close(s.news)
	s.news = make(chan struct{})
}

// until waits for a state of the service.
func (s *recorded) until(t *testing.T, reached func() bool) {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		s.mu.Lock()
		done, news := reached(), s.news
		s.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatal("the service was not sent what it should")
		}
	}
}

// spells is a service that speaks a text as its letters, in the format's name.
type spells struct{}

func (spells) Synthesize(ctx context.Context, s stream.Speech, each func([]byte) error) error {
	for _, audio := range []string{s.Format + ":", s.Text} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each([]byte(audio)); err != nil {
			return err
		}
	}
	return nil
}

// A voicedService is a service that hears and speaks.
type voicedService struct {
	*service

	recordings *voice.Recordings
}

// startVoiced runs the API with who transcribes and who speaks. Several on one
// database are replicas.
func startVoiced(t *testing.T, db *models.DB, backend stream.Backend, heard voice.Transcriber, speaker stream.Synthesizer, change ...func(*handlers.Config)) *voicedService {
	t.Helper()
	s := &voicedService{}
	var stop func()
	s.service = startOn(t, db, backend, stream.Config{Synthesizer: speaker, PollEvery: 20 * time.Millisecond},
		append([]func(*handlers.Config){func(c *handlers.Config) {
			s.recordings = voice.New(db, c.Hub, voice.Config{
				Transcriber: heard, PollEvery: 10 * time.Millisecond, AdoptEvery: 20 * time.Millisecond,
			}, slog.New(slog.DiscardHandler))
			c.Voice = s.recordings
			ctx, cancel := context.WithCancel(context.Background())
			var running sync.WaitGroup
			running.Go(func() { s.recordings.Run(ctx) })
			stop = func() { s.recordings.Drain(); cancel(); running.Wait() }
		}}, change...)...)
	t.Cleanup(stop)
	return s
}

// wav is a recording of so many bytes, 44 at the least.
func wav(n int) []byte {
	head := []byte("RIFF\x00\x00\x00\x00WAVEfmt \x10\x00\x00\x00\x01\x00\x01\x00\x80\x3e\x00\x00\x00\x7d\x00\x00\x02\x00\x10\x00data\x00\x00\x00\x00")
	return append(head, bytes.Repeat([]byte{1, 200, 0, 77}, n/4+1)...)[:n]
}

// begin makes an upload and returns its id.
func (s *voicedService) begin(who account, body string) int64 {
	s.t.Helper()
	a := s.do(call{method: "POST", path: "/api/v1/voice/uploads", token: who.Access, body: body})
	if a.status != http.StatusCreated {
		s.t.Fatalf("begin: %d %s", a.status, a.body)
	}
	var out struct {
		UploadID int64 `json:"upload_id"`
	}
	decodeInto(s.t, a.body, &out)
	return out.UploadID
}

// chunk is a call that sends bytes from an offset on.
func chunk(who account, id int64, offset int, data []byte) call {
	return call{
		method: "POST", path: fmt.Sprintf("/api/v1/voice/uploads/%d/chunks", id), token: who.Access, body: string(data),
		header: http.Header{"Upload-Offset": {fmt.Sprint(offset)}, "Content-Type": {"application/octet-stream"}},
	}
}

func complete(who account, id int64) call {
	return call{method: "POST", path: fmt.Sprintf("/api/v1/voice/uploads/%d/complete", id), token: who.Access}
}

// raw is a call with a whole recording.
func raw(who account, query string, data []byte) call {
	return call{
		method: "POST", path: "/api/v1/voice/messages" + query, token: who.Access, body: string(data),
		header: http.Header{"Content-Type": {"audio/wav"}},
	}
}

// told is an event of a stream.
type told struct {
	name string
	data map[string]any
}

// listen reads a stream to its end.
func (s *voicedService) listen(c call) []told {
	s.t.Helper()
	res := s.open(c)
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != "text/event-stream" {
		body, _ := io.ReadAll(res.Body)
		s.t.Errorf("%s %s: %d %s", c.method, c.path, res.StatusCode, body)
		return nil
	}
	return readEvents(s.t, res.Body)
}

func readEvents(t *testing.T, body io.Reader) []told {
	t.Helper()
	var all []told
	var now told
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "" && now.name != "":
			all = append(all, now)
			now = told{}
		case strings.HasPrefix(line, "event: "):
			now.name = line[len("event: "):]
		case strings.HasPrefix(line, "data: "):
			if err := json.Unmarshal([]byte(line[len("data: "):]), &now.data); err != nil {
				t.Errorf("%v: %s", err, line)
			}
		}
	}
	return all
}

// outline is what the events say, but for their audio and what changes from run
// to run.
func outline(events []told) []string {
	var all []string
	for _, e := range events {
		text := e.name
		for _, field := range []string{"status", "code", "text", "full_text", "retryable"} {
			if v, ok := e.data[field]; ok {
				text += fmt.Sprintf(" %v", v)
			}
		}
		if len(all) == 0 || all[len(all)-1] != text {
			all = append(all, text)
		}
	}
	return all
}

// rows counts what is stored of recordings.
func rows(t *testing.T, db *models.DB, table string) int {
	t.Helper()
	var n int
	if err := db.Bun().NewRaw("SELECT count(*) FROM "+table).Scan(t.Context(), &n); err != nil {
		t.Fatal(err)
	}
	return n
}
