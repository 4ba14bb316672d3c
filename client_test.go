package main_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// client is how the tests speak HTTP: no proxy, and no answer takes for ever.
var client = &http.Client{Transport: &http.Transport{}, Timeout: patience}

// An answer is one that was read whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// decode reads the body as JSON.
func (a answer) decode(tb testing.TB, into any) {
	tb.Helper()
	if err := json.Unmarshal(a.body, into); err != nil {
		tb.Fatalf("%v in %d %s", err, a.status, a.body)
	}
}

// want fails the test unless the answer has the status.
func (a answer) want(tb testing.TB, status int) answer {
	tb.Helper()
	if a.status != status {
		tb.Fatalf("got %d %s, want %d", a.status, a.body, status)
	}
	return a
}

// A user is somebody who is signed in, on one device.
type user struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
}

// nobody is not signed in.
var nobody user

const credentials = `{"email":"you@example.com","password":"correct horse battery"}`

func signUp(tb testing.TB, s *service) user {
	tb.Helper()
	var u user
	nobody.ask(tb, s, "POST", "/api/v1/auth/signup", credentials).want(tb, 201).decode(tb, &u)
	return u
}

// send sends a request, with a JSON body unless that is empty, and header lines
// such as "Accept: application/json". The answer's body may be read until the
// test's end.
func (u user) send(tb testing.TB, s *service, method, path, body string, header ...string) (int, http.Header, io.ReadCloser) {
	tb.Helper()
	r, err := http.NewRequestWithContext(tb.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		tb.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if u.AccessToken != "" {
		r.Header.Set("Authorization", "Bearer "+u.AccessToken)
	}
	for _, line := range header {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	res, err := cmp.Or(s.web, client).Do(r)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { res.Body.Close() })
	return res.StatusCode, res.Header, res.Body
}

// ask sends a request and reads the answer.
func (u user) ask(tb testing.TB, s *service, method, path, body string, header ...string) answer {
	tb.Helper()
	status, headers, content := u.send(tb, s, method, path, body, header...)
	read, err := io.ReadAll(content)
	if err != nil {
		tb.Fatal(err)
	}
	return answer{status, headers, read}
}

// A message is one as the API tells it.
type message struct {
	ID      int64
	ChatID  int64 `json:"chat_id"`
	Role    string
	Content string
	Status  string
}

// An exchange is what a send answers in JSON.
type exchange struct {
	ChatID      int64   `json:"chat_id"`
	UserMessage message `json:"user_message"`
	Message     message
}

// message reads a message as it is stored.
func (u user) message(tb testing.TB, s *service, id int64) message {
	tb.Helper()
	var m message
	u.ask(tb, s, "GET", fmt.Sprintf("/api/v1/messages/%d", id), "").want(tb, 200).decode(tb, &m)
	return m
}

// say begins a chat and follows the reply.
func (u user) say(tb testing.TB, s *service, text string) *reading {
	tb.Helper()
	r := &reading{tb: tb}
	r.open(u.send(tb, s, "POST", "/api/v1/messages", fmt.Sprintf(`{"message":%q}`, text)))
	return r
}

// follow follows a reply from its beginning.
func (u user) follow(tb testing.TB, s *service, messageID int64) *reading {
	tb.Helper()
	r := &reading{tb: tb}
	r.open(u.send(tb, s, "GET", fmt.Sprintf("/api/v1/messages/%d/stream", messageID), ""))
	return r
}

// A reading is what a client has of one reply, which it follows on one stream
// after the other. It checks each event against the text so far.
type reading struct {
	tb    testing.TB
	body  io.Closer
	lines *bufio.Scanner

	chatID, messageID int64
	text              string
	pieces            int    // message_token events
	lastID            string // what it would send as Last-Event-ID
	retry             string // what the server last said of coming back
	end               string // the event that ended the reply, and its code
}

// resume follows on, with any replica, where the last stream ended.
func (r *reading) resume(u user, s *service) {
	r.tb.Helper()
	r.body.Close()
	r.open(u.send(r.tb, s, "GET", fmt.Sprintf("/api/v1/messages/%d/stream", r.messageID), "", "Last-Event-ID: "+r.lastID))
}

func (r *reading) open(status int, header http.Header, body io.ReadCloser) {
	r.tb.Helper()
	if kind := header.Get("Content-Type"); status != 200 || kind != "text/event-stream" {
		content, _ := io.ReadAll(body)
		r.tb.Fatalf("got %d %s %s, want events", status, kind, content)
	}
	r.body, r.lines, r.retry = body, bufio.NewScanner(body), ""
}

// until reads events until enough says so, or the stream ends. The error is why
// it did: io.EOF is an end in order.
func (r *reading) until(enough func() bool) error {
	r.tb.Helper()
	for !enough() {
		event, err := r.next()
		if err != nil {
			return err
		}
		r.take(event)
	}
	return nil
}

// through reads until the stream has ended in order.
func (r *reading) through() {
	r.tb.Helper()
	if err := r.until(func() bool { return false }); err != io.EOF {
		r.tb.Fatalf("the stream broke off: %v", err)
	}
}

// has reads until the text is that long.
func (r *reading) has(length int) {
	r.tb.Helper()
	if err := r.until(func() bool { return len(r.text) >= length }); err != nil {
		r.tb.Fatalf("the stream ended after %q: %v", r.text, err)
	}
}

// next reads the fields of one event.
func (r *reading) next() (map[string]string, error) {
	event := make(map[string]string)
	for r.lines.Scan() {
		field, value, _ := strings.Cut(r.lines.Text(), ":")
		switch {
		case r.lines.Text() == "" && len(event) > 0:
			return event, nil
		case field != "": // not a comment
			event[field] = strings.TrimPrefix(value, " ")
		}
	}
	if err := r.lines.Err(); err != nil {
		return nil, err
	}
	return nil, io.EOF
}

func (r *reading) take(event map[string]string) {
	r.tb.Helper()
	if retry, ok := event["retry"]; ok {
		r.retry = retry
	}
	name, ok := event["event"]
	if !ok {
		return
	}
	var data struct {
		ChatID    int64  `json:"chat_id"`
		MessageID int64  `json:"message_id"`
		Text      string `json:"text"`
		FullText  string `json:"full_text"`
		Code      string `json:"code"`
	}
	if err := json.Unmarshal([]byte(event["data"]), &data); err != nil {
		r.tb.Fatalf("%v in %v", err, event)
	}
	if r.end != "" || (name == "message_start") == (r.messageID != 0) {
		r.tb.Errorf("%v comes out of turn, after %q", event, r.text)
	}
	switch name {
	case "message_start":
		r.chatID, r.messageID = data.ChatID, data.MessageID
	case "message_token":
		r.text += data.Text
		r.pieces++
	case "message_complete":
		r.end = name
		if data.FullText != r.text {
			r.tb.Errorf("full_text is %q, and the events were %q", data.FullText, r.text)
		}
	case "error":
		r.end = name + " " + data.Code
	default:
		r.tb.Errorf("%v is no event of this reply", event)
	}
	r.lastID = event["id"]
	if want := fmt.Sprintf("1-%d", len(r.text)); r.lastID != want {
		r.tb.Errorf("%v has another id than %s, after %q", event, want, r.text)
	}
}

// check compares the reading with the reply as it is stored, and is stored on.
func (r *reading) check(u user, s *service, status string) {
	r.tb.Helper()
	got := message{r.messageID, r.chatID, "assistant", r.text, status}
	if want := u.message(r.tb, s, r.messageID); got != want {
		r.tb.Errorf("the client has %+v, and stored is %+v", got, want)
	}
}
