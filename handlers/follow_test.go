package handlers_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

func TestFollow(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello ", "Ann."))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		const path = "/api/v1/messages/2/stream"
		last := func(id string) http.Header { return http.Header{"Last-Event-Id": {id}} }
		for name, tt := range map[string]struct {
			path   string
			header http.Header
			want   []string
		}{
			"from the beginning":        {path, nil, []string{startEvent(1, 1, 2, "Hi"), "Hello Ann.", completeEvent(2, "Hello Ann.")}},
			"from the start event":      {path, last("1-0"), []string{"Hello Ann.", completeEvent(2, "Hello Ann.")}},
			"from the middle":           {path, last("1-6"), []string{"Ann.", completeEvent(2, "Hello Ann.")}},
			"from the middle, by query": {path + "?last_event_id=1-6", nil, []string{"Ann.", completeEvent(2, "Hello Ann.")}},
			"the header counts more":    {path + "?last_event_id=1-10", last("1-9"), []string{".", completeEvent(2, "Hello Ann.")}},
			"the same id twice":         {path, http.Header{"Last-Event-Id": {"1-9", "1-9"}}, []string{".", completeEvent(2, "Hello Ann.")}},
			"an empty header is none":   {path + "?last_event_id=1-9", last(""), []string{".", completeEvent(2, "Hello Ann.")}},
		} {
			t.Run(name, func(t *testing.T) {
				res := s.open(call{method: "GET", path: tt.path, token: ann.Access, header: tt.header})
				defer res.Body.Close()
				if diff := cmp.Diff(tt.want, events(t, res.Body)); diff != "" || res.StatusCode != 200 {
					t.Errorf("%d, events (-want +got):\n%s", res.StatusCode, diff)
				}
			})
		}
		detail := "This is not the id of an event of this reply."
		invalid := problem(400, "invalid_last_event_id", detail, field("last_event_id", "invalid_last_event_id", detail))
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"nothing is missing":    {call{path: path, token: ann.Access, header: last("1-10")}, wanted{204, "", nil}},
			"past the text":         {call{path: path, token: ann.Access, header: last("1-11")}, invalid},
			"of another attempt":    {call{path: path, token: ann.Access, header: last("2-0")}, invalid},
			"no id":                 {call{path: path, token: ann.Access, header: last("abc")}, invalid},
			"two ids":               {call{path: path, token: ann.Access, header: http.Header{"Last-Event-Id": {"1-6", "1-9"}}}, invalid},
			"two ids, by query":     {call{path: path + "?last_event_id=1-6&last_event_id=1-9", token: ann.Access}, invalid},
			"an id cut in two":      {call{path: path + "?last_event_id=1-6%", token: ann.Access}, invalid},
			"an id and a semicolon": {call{path: path + "?last_event_id=1-6;audio=chunks", token: ann.Access}, invalid},
			"no id, by query":       {call{path: path + "?last_event_id=1", token: ann.Access}, invalid},
			"somebody else's":       {call{path: path, token: bob.Access}, forbidden},
			"somebody else's words": {call{path: "/api/v1/messages/1/stream", token: bob.Access}, forbidden},
			"a message of the user": {call{path: "/api/v1/messages/1/stream", token: ann.Access}, notFound},
			"none":                  {call{path: "/api/v1/messages/3/stream", token: ann.Access}, notFound},
			"without a token":       {call{path: path}, problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "").with("WWW-Authenticate", challenge)},
		} {
			t.Run(name, func(t *testing.T) {
				tt.call.method = "GET"
				s.check(t, tt.call, tt.want)
			})
		}
	})
}

// Leaving is not stopping: the reply is saved whole, and JSON shows meanwhile
// that it streams.
func TestTheClientLeaves(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		release := make(chan struct{})
		s := start(t, db, hangs(release))
		ann := s.signup("ann@example.com")
		res := s.open(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		if got := firstWords(t, res.Body); got != "Hello" {
			t.Errorf("the reply begins with %q, want Hello", got)
		}
		res.Body.Close()
		var message struct{ Status, Content string }
		decodeInto(t, s.do(call{method: "GET", path: "/api/v1/messages/2", token: ann.Access}).body, &message)
		if message.Status != "streaming" {
			t.Errorf("status is %s, want streaming", message.Status)
		}
		close(release)
		back := s.open(call{method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access})
		events(t, back.Body)
		back.Body.Close()
		s.check(t, call{method: "GET", path: "/api/v1/messages/2", token: ann.Access}, wanted{200, `{"id":2,"chat_id":1,"role":"assistant",` +
			`"content":"Hello","timestamp":"<time>","status":"complete","finish_reason":"stop"` + fewTokens + `}`, nil})
	})
}

func TestDeleteAChatUnderAReply(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		asked, stopped := make(chan struct{}), make(chan error, 1)
		s := start(t, db, backend(func(ctx context.Context, _ stream.Prompt, _ func(stream.Chunk) error) error {
			close(asked)
			<-ctx.Done()
			stopped <- ctx.Err()
			return ctx.Err()
		}))
		ann := s.signup("ann@example.com")
		res := s.open(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		defer res.Body.Close()
		<-asked
		s.check(t, call{method: "DELETE", path: "/api/v1/chats/1", token: ann.Access}, wanted{204, "", nil})
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("the backend's call ended with %v, want it to be cancelled", err)
		}
		want := []string{
			startEvent(1, 1, 2, "Hi"),
			"event: error\nid: 1-0\ndata: {\"message\":\"The chat was deleted.\",\"code\":\"chat_deleted\",\"retryable\":false,\"message_id\":2}",
		}
		if diff := cmp.Diff(want, events(t, res.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// A backend that breaks off is told in each form, with what it said.
func TestABackendThatFails(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, backend(func(_ context.Context, _ stream.Prompt, each func(stream.Chunk) error) error {
			if err := each(stream.Chunk{Text: "I was"}); err != nil {
				return err
			}
			return &stream.BackendError{Code: stream.CodeBackendError, Retryable: true, Err: errors.New("secret host:50051 reset")}
		}))
		ann := s.signup("ann@example.com")
		c := call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`}
		res := s.open(c)
		defer res.Body.Close()
		want := []string{
			startEvent(1, 1, 2, "Hi"), "I was",
			"event: error\nid: 1-5\ndata: {\"message\":\"The AI service broke off. What it said so far is kept; send again to go on.\"," +
				"\"code\":\"backend_error\",\"retryable\":true,\"message_id\":2}",
		}
		if diff := cmp.Diff(want, events(t, res.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		c.path, c.header = "/api/v1/chats/1/messages", http.Header{"Accept": {"application/json"}}
		s.check(t, c, wanted{200, `{"chat_id":1,"user_message":{"id":3,"chat_id":1,"role":"user","content":"Hi","timestamp":"<time>","status":"complete"},` +
			`"message":{"id":4,"chat_id":1,"role":"assistant","content":"I was","timestamp":"<time>","status":"failed",` +
			`"usage":{"input_tokens":3,"output_tokens":2,"estimated":true}}}`, nil})
	})
}

func TestDraining(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, hangs(nil))
		ann := s.signup("ann@example.com")
		c := call{
			method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`,
			header: http.Header{"Accept": {"application/json"}},
		}
		waiting := make(chan answer)
		go func() { waiting <- s.do(c) }()
		// Once its first words arrive the reply is on its way.
		for said := false; !said; {
			select {
			case got := <-waiting:
				t.Fatalf("got %d %s before the reply was through", got.status, got.body)
			default:
			}
			res := s.open(call{method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access})
			said = res.StatusCode == 200 && firstWords(t, res.Body) == "Hello"
			res.Body.Close()
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		s.hub.Drain(ended)
		s.check(t, c, problem(503, "draining", "This replica is about to end. Try again at once.", "").with("Retry-After", "1"))
		lines := s.requests()
		if line := lines[len(lines)-1]; line["code"] != "draining" || line["level"] != "WARN" {
			t.Errorf("the line is %v, want a warning: nothing is at fault", line)
		}
		got := <-waiting
		if got.status != 202 || got.header.Get("Location") != "/api/v1/messages/2/stream" {
			t.Errorf("who waited got %d %s, want 202 and where the reply goes on", got.status, got.body)
		}
	})
}

// A client that has said all may shut its side and listen: to the server it looks
// like one that is gone. Its message is stored, and it must not send it again.
func TestAClientThatOnlyListens(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, hangs(nil))
		ann := s.signup("ann@example.com")
		conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		const body = `{"message":"Hi"}`
		fmt.Fprintf(conn, "POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"+
			"Accept: application/json\r\nContent-Length: %d\r\n\r\n%s", ann.Access, len(body), body)
		eventually(t, func() bool {
			stream := s.open(call{method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access})
			stream.Body.Close()
			return stream.StatusCode == 200
		})
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode != 202 || res.Header.Get("Location") != "/api/v1/messages/2/stream" {
			t.Errorf("got %s, want 202 and where the reply goes on", res.Status)
		}
		eventually(t, func() bool {
			return slices.ContainsFunc(s.requests(), func(line map[string]any) bool { return line["method"] == "POST" && line["status"] == 499.0 })
		})
	})
}

func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		feed := call{method: "GET", path: "/api/v1/events", token: ann.Access}
		for range maxStreams {
			res := s.open(feed)
			defer res.Body.Close()
			if res.StatusCode != 200 {
				t.Fatalf("a stream gets %d, want 200", res.StatusCode)
			}
		}
		want := problem(429, "too_many_streams", "Too many streams are open. Close one, and try again.", "").with("Retry-After", "5")
		s.check(t, feed, want)
		s.check(t, call{method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access}, want)
		stored := s.rows("messages")
		s.check(t, call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`}, want)
		if n := s.rows("messages"); n != stored {
			t.Errorf("%d messages were stored before the refusal", n-stored)
		}
		if a := s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsAsync}); a.status != 202 {
			t.Errorf("who wants no stream gets %d %s, want 202", a.status, a.body)
		}
		feed.token = bob.Access
		res := s.open(feed)
		defer res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("somebody else gets %d, want 200", res.StatusCode)
		}
	})
}

// down is a backend that is known to be down.
type down struct{ backend }

func (down) Admit() error {
	return &stream.BackendError{Code: stream.CodeBackendUnavailable, Retryable: true, Err: errors.New("left alone")}
}

// Nothing is stored of a message that could not be answered.
func TestABackendThatIsDown(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, down{says()})
		ann := s.signup("ann@example.com")
		s.check(t, call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`},
			problem(503, "backend_unavailable", "The AI service does not answer at the moment. Try again soon.", "").with("Retry-After", "2"))
		if n := s.rows("messages"); n != 0 {
			t.Errorf("%d messages are stored, want none", n)
		}
		lines := s.requests()
		if line := lines[len(lines)-1]; line["code"] != "backend_unavailable" || line["level"] != "WARN" {
			t.Errorf("the line is %v, want a warning", line)
		}
	})
}
