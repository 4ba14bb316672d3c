package stream_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen, on a machine that has
// other things to do.
const patience = 2 * time.Minute

// A backend is a stream.Backend made of a function.
type backend func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error

func (b backend) Reply(ctx context.Context, p *stream.Prompt, each func(stream.Chunk) error) error {
	return b(ctx, *p, each)
}

func (b backend) Admit() error { return nil }

// says is a backend that says these words, and then that it is done.
func says(words ...string) backend {
	return func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
		for _, w := range words {
			if err := each(stream.Chunk{Text: w}); err != nil {
				return err
			}
		}
		return each(stream.Chunk{Done: true, FinishReason: "stop", Usage: &stream.Usage{InputTokens: 3, OutputTokens: int64(len(words))}})
	}
}

// saysAndWaits is a backend that says text, and nothing more until its call ends.
func saysAndWaits(text string) backend {
	return func(ctx context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
		if err := each(stream.Chunk{Text: text}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// steps is a backend that says a word each time it is told to, for each reply
// the same; closing words ends it.
func steps(words <-chan string) backend {
	return func(ctx context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
		for {
			select {
			case w, ok := <-words:
				if !ok {
					return each(stream.Chunk{Done: true})
				}
				if err := each(stream.Chunk{Text: w}); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// A replica is a hub with a server in front of it.
type replica struct {
	*stream.Hub
	db     *models.DB
	server *httptest.Server
	kill   func() // ends its loops without a word
}

var replicas struct {
	sync.Mutex
	n int
}

// hasty is for replicas of which one dies: the others learn of it sooner. On a busy
// machine it may also be taken for dead while it lives, and one that is late by a
// quarter of that sends nothing until it knows better.
func hasty(c *stream.Config) { c.Lease = time.Second }

// start makes a replica on db. Its intervals are short, so that tests are.
func start(t *testing.T, db *models.DB, b stream.Backend, change ...func(*stream.Config)) *replica {
	t.Helper()
	replicas.Lock()
	replicas.n++
	config := stream.Config{
		Replica:    fmt.Sprintf("replica-%d", replicas.n),
		FlushEvery: 10 * time.Millisecond,
		SaveEvery:  20 * time.Millisecond,
		PollEvery:  20 * time.Millisecond,
	}
	replicas.Unlock()
	for _, c := range change {
		c(&config)
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, nil))
	hub := stream.NewHub(db, b, config, log)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		hub.Run(ctx)
	}()
	r := &replica{Hub: hub, db: db, kill: sync.OnceFunc(func() { cancel(); <-done })}
	r.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, err := strconv.ParseInt(req.URL.Query().Get("user"), 10, 64)
		if err != nil {
			t.Error(err)
		}
		viewer := stream.Viewer{UserID: user, SID: req.URL.Query().Get("sid"), IssuedAt: time.Now()}
		if last := req.Header.Get("Last-Event-ID"); req.URL.Path == "/events" {
			err = hub.ServeEvents(w, req, viewer, last, tellKind)
		} else {
			id, perr := strconv.ParseInt(strings.TrimPrefix(req.URL.Path, "/"), 10, 64)
			err = errors.Join(perr, hub.Serve(w, req, viewer, id, last))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusTeapot)
		}
	}))
	t.Cleanup(func() {
		r.server.Close()
		ended, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		hub.Drain(ended)
		r.kill()
	})
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// newUser makes a user with a chat.
func newUser(t *testing.T, db *models.DB) (userID, chatID int64) {
	t.Helper()
	now := time.Now()
	u := models.User{Email: fmt.Sprintf("u%d@example.com", now.UnixNano()), UserName: "u", PasswordHash: "x"}
	s := models.DeviceSession{SID: u.Email, Name: "test", ExpiresAt: now.Add(time.Hour)}
	if err := db.CreateUser(t.Context(), &u, &s, models.By{}); err != nil {
		t.Fatal(err)
	}
	c, _, err := db.CreateChat(t.Context(), u.ID, "New Chat", false, nil)
	if err != nil {
		t.Fatal(err)
	}
	return u.ID, c.ID
}

// send has a reply made.
func (r *replica) send(t *testing.T, userID, chatID int64, message string) models.Exchange {
	t.Helper()
	ex, err := r.Send(t.Context(), models.NewTurn{UserID: userID, ChatID: chatID, Content: message})
	if err != nil {
		t.Fatal(err)
	}
	return ex
}

// await waits for the end of a reply.
func (r *replica) await(t *testing.T, userID, messageID int64) models.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := r.Await(ctx, userID, messageID)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// An event is one that a client dispatches.
type event struct{ name, id, data string }

// A follow is a client of one stream.
type follow struct {
	t        *testing.T
	response *http.Response
	lines    *bufio.Reader
	lastID   string
	retry    string
	comments int
}

// open follows a reply over HTTP.
func (r *replica) open(t *testing.T, userID, messageID int64, lastID string) *follow {
	t.Helper()
	return r.get(t, fmt.Sprintf("/%d?user=%d", messageID, userID), lastID)
}

func (r *replica) get(t *testing.T, path, lastID string) *follow {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.server.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return &follow{t: t, response: res, lines: bufio.NewReader(res.Body), lastID: lastID}
}

// next reads on to the next event, as the HTML standard says in "Interpreting
// an event stream"; ok is false at the end of the stream.
func (f *follow) next() (e event, ok bool) {
	f.t.Helper()
	var data []string
	for {
		line, err := f.lines.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return event{}, false
		}
		if err != nil {
			f.t.Fatal(err)
		}
		line = strings.TrimSuffix(line, "\n")
		if line == "" {
			if data == nil {
				e = event{}
				continue
			}
			e.id, e.data = f.lastID, strings.Join(data, "\n")
			return e, true
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			f.comments++
		case "event":
			e.name = value
		case "data":
			data = append(data, value)
		case "id":
			f.lastID = value
		case "retry":
			f.retry = value
		}
	}
}

// all reads the rest of the stream.
func (f *follow) all() []event {
	f.t.Helper()
	var events []event
	for {
		e, ok := f.next()
		if !ok {
			return events
		}
		events = append(events, e)
	}
}

// A transcript is what a client makes of the events that it gets: the text,
// and how it ended.
type transcript struct {
	text   string
	resets int
	ending event
}

func (tr *transcript) take(t *testing.T, e event) {
	t.Helper()
	switch e.name {
	case "message_start":
	case "message_token":
		tr.text += field[string](t, e, "text")
	case "message_reset":
		tr.text = ""
		tr.resets++
	case "message_complete", "message_stopped", "error":
		tr.ending = e
	default:
		t.Errorf("unknown event %q", e.name)
	}
	if want := fmt.Sprintf("-%d", len(tr.text)); !strings.HasSuffix(e.id, want) {
		t.Errorf("the id of %s is %s after %d bytes", e.name, e.id, len(tr.text))
	}
}

// until takes what f gets until the text is this.
func (tr *transcript) until(t *testing.T, f *follow, text string) {
	t.Helper()
	for tr.text != text {
		e, ok := f.next()
		if !ok {
			t.Fatalf("the stream ended at %q, before %q", tr.text, text)
		}
		tr.take(t, e)
	}
}

// field reads one member of an event's data.
func field[T any](t *testing.T, e event, name string) T {
	t.Helper()
	var data map[string]json.RawMessage
	if err := json.Unmarshal([]byte(e.data), &data); err != nil {
		t.Fatalf("%s: %v in %s", e.name, err, e.data)
	}
	var v T
	if err := json.Unmarshal(data[name], &v); err != nil {
		t.Fatalf("%s: %s: %v in %s", e.name, name, err, e.data)
	}
	return v
}

// each runs a test on both databases.
func each(t *testing.T, test func(t *testing.T, db *models.DB)) {
	t.Helper()
	t.Parallel()
	modelstest.Each(t, test)
}

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
