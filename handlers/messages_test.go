package handlers_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// events reads an event stream to its end. Tokens that follow each other are
// one: how many arrive in one event is not promised.
func events(t *testing.T, body io.Reader) []string {
	t.Helper()
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatalf("the stream broke off: %v", err)
	}
	var out []string
	text := ""
	for block := range strings.SplitSeq(strings.TrimSuffix(string(raw), "\n\n"), "\n\n") {
		block = strings.TrimPrefix(block, "retry: 1000\n")
		if strings.HasPrefix(block, ":") || block == "" {
			continue
		}
		if data, ok := strings.CutPrefix(block, "event: message_token\n"); ok {
			_, data, _ = strings.Cut(data, "data: ")
			var token struct{ Text string }
			decodeInto(t, data, &token)
			text += token.Text
			continue
		}
		if text != "" {
			out, text = append(out, text), ""
		}
		out = append(out, block)
	}
	return out
}

// firstWords reads an event stream up to its first token.
func firstWords(t *testing.T, body io.Reader) string {
	t.Helper()
	var event string
	for r := bufio.NewScanner(body); r.Scan(); {
		if name, ok := strings.CutPrefix(r.Text(), "event: "); ok {
			event = name
		}
		if data, ok := strings.CutPrefix(r.Text(), "data: "); ok && event == "message_token" {
			var token struct{ Text string }
			decodeInto(t, data, &token)
			return token.Text
		}
	}
	return ""
}

func startEvent(chat, user, message int, title string) string {
	return fmt.Sprintf("event: message_start\nid: 1-0\ndata: {\"chat_id\":%d,\"user_message_id\":%d,\"message_id\":%d,\"title\":%q}", chat, user, message, title)
}

func completeEvent(message int, text string) string {
	return fmt.Sprintf("event: message_complete\nid: 1-%d\n"+
		"data: {\"message_id\":%d,\"full_text\":%q,\"finish_reason\":\"stop\",\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}", len(text), message, text)
}

func TestSendAsEvents(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("I ", "unders", "tand. ☂"))
		ann := s.signup("ann@example.com")
		for i, tt := range []struct{ path, body string }{
			{"/api/v1/messages", `{"message":"I need advice","id":99,"role":"assistant"}`},
			{"/api/chat/send", `{"message":"I need advice"}`},
		} {
			res := s.open(call{method: "POST", path: tt.path, token: ann.Access, body: tt.body})
			got := events(t, res.Body)
			res.Body.Close()
			want := []string{
				startEvent(i+1, 2*i+1, 2*i+2, "I need advice"), "I understand. ☂", completeEvent(2*i+2, "I understand. ☂"),
			}
			if diff := cmp.Diff(want, got); diff != "" || res.StatusCode != 200 {
				t.Errorf("%s: %d, events (-want +got):\n%s", tt.path, res.StatusCode, diff)
			}
			for name, value := range map[string]string{
				"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no",
				"X-Content-Type-Options": "nosniff", "Vary": "Origin",
			} {
				if got := strings.Join(res.Header.Values(name), ", "); got != value {
					t.Errorf("%s: %s is %q, want %q", tt.path, name, got, value)
				}
			}
			if res.Header.Get("X-Request-Id") == "" {
				t.Errorf("%s: a stream without X-Request-Id", tt.path)
			}
		}
		// Into a chat, by each of its names.
		for i, tt := range []struct{ path, body string }{
			{"/api/v1/chats/1/messages", `{"message":"And?","chat_id":2}`},
			{"/api/v1/messages", `{"message":"And?","chat_id":1}`},
			{"/api/v1/messages", `{"message":"And?","session_id":1}`},
			{"/api/chat/send", `{"message":"And?","chat_id":1,"session_id":1}`},
		} {
			res := s.open(call{method: "POST", path: tt.path, token: ann.Access, body: tt.body})
			got := events(t, res.Body)
			res.Body.Close()
			want := []string{
				startEvent(1, 2*i+5, 2*i+6, "I need advice"), "I understand. ☂", completeEvent(2*i+6, "I understand. ☂"),
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %s: events (-want +got):\n%s", tt.path, tt.body, diff)
			}
		}
	})
}

func exchangeBody(chat, user, message int, text string) string {
	return fmt.Sprintf(`{"chat_id":%[1]d,"user_message":{"id":%[2]d,"chat_id":%[1]d,"role":"user","content":"Hi","timestamp":"<time>","status":"complete"},`+
		`"message":{"id":%[3]d,"chat_id":%[1]d,"role":"assistant","content":%[4]q,"timestamp":"<time>","status":"complete",`+
		`"finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}}}`, chat, user, message, text)
}

func TestTheFormOfAReply(t *testing.T) {
	t.Parallel()
	none := problem(406, "not_acceptable", "A reply is sent as text/event-stream or as application/json.", "")
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann := s.signup("ann@example.com")
		const stream, json = "text/event-stream", "application/json"
		for name, tt := range map[string]struct {
			accept []string
			want   string // the content type; empty: none
		}{
			"no Accept":                              {nil, stream},
			"an empty Accept":                        {[]string{""}, stream},
			"anything":                               {[]string{"*/*"}, stream},
			"events":                                 {[]string{"text/event-stream"}, stream},
			"events in capitals":                     {[]string{"TEXT/Event-Stream"}, stream},
			"JSON":                                   {[]string{"application/json"}, json},
			"JSON with a charset":                    {[]string{"application/json; charset=utf-8"}, json},
			"JSON first, then anything, as axios":    {[]string{"application/json, text/plain, */*"}, json},
			"JSON and less gladly anything":          {[]string{"application/json, */*;q=0.8"}, json},
			"events and less gladly JSON":            {[]string{"text/event-stream, application/json;q=0.9"}, stream},
			"JSON and less gladly events":            {[]string{"text/event-stream;q=0.1, application/json;q=0.2"}, json},
			"both alike":                             {[]string{"application/json, text/event-stream"}, stream},
			"both alike in two headers":              {[]string{"application/json", "text/event-stream"}, stream},
			"any text":                               {[]string{"text/*"}, stream},
			"any application":                        {[]string{"application/*"}, json},
			"anything but events":                    {[]string{"*/*, text/event-stream;q=0"}, json},
			"a browser's page":                       {[]string{"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}, stream},
			"a weight that is none is no wish":       {[]string{"application/json;q=2, */*;q=0.1"}, stream},
			"what is no media type is no wish":       {[]string{"json"}, stream},
			"XML alone":                              {[]string{"application/xml"}, ""},
			"nothing at all":                         {[]string{"*/*;q=0"}, ""},
			"neither of the two":                     {[]string{"application/json;q=0.000, text/event-stream;q=0, text/html"}, ""},
			"JSON of another kind is not JSON":       {[]string{"application/problem+json"}, ""},
			"a weight of zero among less exact ones": {[]string{"application/json;q=0, application/*, */*;q=0.1"}, stream},
		} {
			t.Run(name, func(t *testing.T) {
				c := call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: http.Header{}}
				if tt.accept != nil {
					c.header["Accept"] = tt.accept
				}
				if tt.want == "" {
					s.check(t, c, none)
					return
				}
				if got := s.do(c); got.status != 200 || got.header.Get("Content-Type") != tt.want {
					t.Errorf("got %d %s, want 200 %s", got.status, got.header.Get("Content-Type"), tt.want)
				}
			})
		}
	})
}

func TestSendAsJSON(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hel", "lo."))
		ann := s.signup("ann@example.com")
		s.check(t, call{
			method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`,
			header: http.Header{"Accept": {"application/json"}},
		}, wanted{200, exchangeBody(1, 1, 2, "Hello."), map[string]string{"Content-Type": "application/json", "Location": ""}})
		// events are not put off
		res := s.open(call{
			method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`,
			header: http.Header{"Prefer": {"respond-async"}},
		})
		defer res.Body.Close()
		if diff := cmp.Diff([]string{startEvent(2, 3, 4, "Hi"), "Hello.", completeEvent(4, "Hello.")}, events(t, res.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestSendAsync(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := start(t, db, hangs(release))
		ann := s.signup("ann@example.com")
		got := s.check(t, call{
			method: "POST", path: "/api/messages", token: ann.Access, body: `{"message":"Hi"}`,
			header: http.Header{"Accept": {"application/json"}, "Prefer": {"wait=10, Respond-Async; x=1"}},
		}, wanted{202, `{"chat_id":1,"user_message":{"id":1,"chat_id":1,"role":"user","content":"Hi","timestamp":"<time>","status":"complete"},` +
			`"message":{"id":2,"chat_id":1,"role":"assistant","content":"","timestamp":"<time>","status":"streaming"}}`, map[string]string{
			"Location": "/api/v1/messages/2/stream", "Preference-Applied": "respond-async",
		}})
		res := s.open(call{method: "GET", path: got.header.Get("Location"), token: ann.Access})
		defer res.Body.Close()
		close(release)
		want := []string{
			startEvent(1, 1, 2, "Hi"), "Hello",
			"event: message_complete\nid: 1-5\ndata: {\"message_id\":2,\"full_text\":\"Hello\",\"finish_reason\":\"stop\"" + fewTokens + "}",
		}
		if diff := cmp.Diff(want, events(t, res.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

func TestBadMessages(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := start(t, db, hangs(release))
		defer close(release)
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/chats", token: bob.Access})
		invalid := func(code, name, detail string) wanted {
			return problem(400, code, detail, field(name, code, detail))
		}
		missing := problem(400, "missing_fields", "Fields are missing; errors names them.", field("message", "required", "message is required."))
		empty := invalid("empty_message", "message", "message holds nothing but white space.")
		number := invalid("invalid_chat_id", "chat_id", "chat_id must be a positive number.")
		for name, tt := range map[string]struct {
			path, body string
			want       wanted
		}{
			"no message":               {"/messages", `{}`, missing},
			"no message into a chat":   {"/chats/1/messages", `{"text":"hi"}`, missing},
			"an empty message":         {"/messages", `{"message":""}`, empty},
			"white space":              {"/messages", `{"message":" \n\u3000\u2003\t"}`, empty},
			"a message too long":       {"/messages", `{"message":"` + strings.Repeat("ß", 32_001) + `"}`, invalid("message_too_long", "message", "message may have 32000 characters at most.")},
			"two chats":                {"/messages", `{"message":"hi","chat_id":1,"session_id":2}`, invalid("invalid_chat_id", "session_id", "chat_id and session_id name different chats.")},
			"chat 0":                   {"/messages", `{"message":"hi","chat_id":0}`, number},
			"a negative session":       {"/messages", `{"message":"hi","session_id":-1}`, invalid("invalid_chat_id", "session_id", "session_id must be a positive number.")},
			"a chat named by a string": {"/messages", `{"message":"hi","chat_id":"1"}`, problem(400, "invalid_json", "chat_id must be a whole number that fits 64 bits.", field("chat_id", "invalid_type", "chat_id must be a whole number that fits 64 bits."))},
			"null for a chat":          {"/messages", `{"message":"hi","chat_id":null}`, problem(400, "invalid_json", "chat_id must not be null.", field("chat_id", "null", "chat_id must not be null."))},
			"somebody else's chat":     {"/messages", `{"message":"hi","chat_id":1}`, forbidden},
			"somebody else's, by path": {"/chats/1/messages", `{"message":"hi"}`, forbidden},
			"no such chat":             {"/messages", `{"message":"hi","chat_id":4711}`, notFound},
			"no such chat, by path":    {"/chats/4711/messages", `{"message":"hi"}`, notFound},
			"an array":                 {"/messages", `[{"message":"hi"}]`, problem(400, "invalid_json", "The body must be one JSON object.", "")},
			"more than a MiB":          {"/messages", `{"message":"hi","x":"` + strings.Repeat("x", 1<<20) + `"}`, problem(413, "body_too_large", "The body may have 1 MiB at most.", "")},
		} {
			t.Run(name, func(t *testing.T) {
				s.check(t, call{method: "POST", path: "/api/v1" + tt.path, token: ann.Access, body: tt.body}, tt.want)
			})
		}
		s.check(t, call{method: "GET", path: "/api/v1/chats", token: ann.Access}, wanted{200, `{"chats":[]}`, nil})
	})
}

// The longest message is taken, and given back as it was sent.
func TestTheLongestMessage(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Ok."))
		ann := s.signup("ann@example.com")
		long := " " + strings.Repeat("😀", 31_998) + "\n"
		body := `{"message":" ` + strings.Repeat(`\ud83d\ude00`, 31_998) + `\n"}`
		if got := s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: body}); got.status != 200 {
			t.Fatalf("got %d %s, want 200", got.status, got.body)
		}
		var message struct{ Content string }
		decodeInto(t, s.do(call{method: "GET", path: "/api/v1/messages/1", token: ann.Access}).body, &message)
		if message.Content != long {
			t.Error("the message is not stored as it was sent")
		}
	})
}

func TestOneReplyAtATime(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := start(t, db, hangs(release))
		ann := s.signup("ann@example.com")
		async := http.Header{"Accept": {"application/json"}, "Prefer": {"respond-async"}}
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: async})
		running := problem(409, "reply_in_progress", "The last message of this chat is still being answered.", "")
		running.body = strings.TrimSuffix(running.body, "}") + `,"message_id":2}`
		again := call{method: "POST", path: "/api/v1/chats/1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: async}
		s.check(t, again, running)
		close(release)
		res := s.open(call{method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access})
		events(t, res.Body)
		res.Body.Close()
		if got := s.do(again); got.status != 202 {
			t.Errorf("after the reply: %d %s, want 202", got.status, got.body)
		}
	})
}

func TestSendUnderAKey(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var asked atomic.Int64
		s := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			asked.Add(1)
			return says("Hello.")(ctx, p, each)
		}))
		ann := s.signup("ann@example.com")
		send := func(path, body, key, accept string) call {
			return call{
				method: "POST", path: path, token: ann.Access, body: body,
				header: http.Header{"Idempotency-Key": {key}, "Accept": {accept}},
			}
		}
		// Ten devices at once, or one whose network is bad.
		var all sync.WaitGroup
		got := make([][]string, 10)
		for i := range got {
			all.Go(func() {
				res := s.open(send("/api/v1/messages", `{"message":"Hi"}`, "k", "text/event-stream"))
				defer res.Body.Close()
				got[i] = events(t, res.Body)
			})
		}
		all.Wait()
		// On PostgreSQL those that lost the race have used up ids.
		var list struct{ Chats []struct{ ID int } }
		decodeInto(t, s.do(call{method: "GET", path: "/api/v1/chats", token: ann.Access}).body, &list)
		if len(list.Chats) != 1 || asked.Load() != 1 {
			t.Fatalf("%d chats and %d calls to the backend, want 1 and 1", len(list.Chats), asked.Load())
		}
		for i := range got {
			if diff := cmp.Diff(got[0], got[i]); diff != "" || len(got[i]) != 3 {
				t.Errorf("stream %d differs from stream 0:\n%s", i, diff)
			}
		}
		whole := s.do(send("/api/chat/send", `{"message":"Hi"}`, "k", "application/json"))
		if whole.status != 200 || !strings.Contains(whole.body, `"content":"Hello."`) || asked.Load() != 1 {
			t.Errorf("the same as JSON: %d %s, want the first reply", whole.status, whole.body)
		}
		reused := problem(422, "idempotency_key_reused", "This Idempotency-Key was used with another body.", "")
		s.check(t, send("/api/v1/messages", `{"message": "Hi"}`, "k", "*/*"), reused)
		s.check(t, send("/api/v1/messages", `{"message":"Ho"}`, "k", "application/json"), reused)
		if a := s.do(send("/api/v1/messages", `{"message":"Ho"}`, "K", "*/*")); a.status != 200 {
			t.Errorf("another key: %d, want 200", a.status)
		}
		// By path the chat is part of what was asked for.
		into := fmt.Sprintf("/api/v1/chats/%d/messages", list.Chats[0].ID)
		if a := s.do(send(into, `{"message":"Hi"}`, "k", "*/*")); a.status != 200 {
			t.Errorf("the key on another route: %d %s, want 200", a.status, a.body)
		}
		s.check(t, send("/api/v1/chats/4711/messages", `{"message":"Hi"}`, "k", "*/*"), reused)
	})
}
