package handlers_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
	"parley/stream"
)

// numbered is a backend whose answers are told apart, and that notes what it
// was asked.
type numbered struct {
	mu    sync.Mutex
	asked []stream.Prompt
}

func (n *numbered) Reply(ctx context.Context, p *stream.Prompt, each func(stream.Chunk) error) error {
	n.mu.Lock()
	n.asked = append(n.asked, *p)
	count := len(n.asked)
	n.mu.Unlock()
	return says(fmt.Sprint("Answer ", count, "."))(ctx, *p, each)
}

func (n *numbered) Admit() error { return nil }

// prompts are what the backend was asked so far.
func (n *numbered) prompts() []stream.Prompt {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.asked)
}

var (
	wantsJSON  = http.Header{"Accept": {"application/json"}}
	wantsAsync = http.Header{"Accept": {"application/json"}, "Prefer": {"respond-async"}}
)

func messageBody(id int, role, content, rest string) string {
	return fmt.Sprintf(`{"id":%d,"chat_id":1,"role":%q,"content":%q,"timestamp":"<time>","status":%s}`, id, role, content, rest)
}

const completed = `"complete","finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}`

func TestStop(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ended := make(chan error, 1)
		s := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			err := hangs(nil)(ctx, p, each)
			ended <- err
			return err
		}))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		sent := s.open(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		defer sent.Body.Close()
		other := s.open(call{method: "GET", path: "/api/v1/messages/2/stream", token: ann.Access})
		defer other.Body.Close()
		if got := firstWords(t, other.Body); got != "Hello" {
			t.Fatalf("the reply begins with %q, want Hello", got)
		}
		stop := func(id, token, body string) call {
			return call{method: "POST", path: "/api/v1/messages/" + id + "/stop", token: token, body: body}
		}
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"somebody else's reply":  {stop("2", bob.Access, ""), forbidden},
			"somebody else's words":  {stop("1", bob.Access, ""), forbidden},
			"what is no reply":       {stop("1", ann.Access, ""), notFound},
			"none":                   {stop("4711", ann.Access, ""), notFound},
			"without a token":        {stop("2", "", ""), problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "")},
			"a body that is no JSON": {stop("2", ann.Access, "now"), problem(400, "invalid_json", "The body is not valid JSON.", "")},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, tt.call, tt.want) })
		}
		select {
		case err := <-ended:
			t.Fatalf("the backend's call ended before it was stopped: %v", err)
		default:
		}

		stopped := wanted{200, messageBody(2, "assistant", "Hello", `"stopped","finish_reason":"stopped"`+fewTokens), map[string]string{"Content-Type": "application/json"}}
		s.check(t, stop("2", ann.Access, ""), stopped)
		if err := <-ended; err != context.Canceled {
			t.Errorf("the backend's call ended with %v, want it to be cancelled", err)
		}
		want := []string{
			startEvent(1, 1, 2, "Hi"), "Hello",
			"event: message_stopped\nid: 1-5\ndata: {\"message_id\":2,\"full_text\":\"Hello\",\"finish_reason\":\"stopped\"" + fewTokens + "}",
		}
		if diff := cmp.Diff(want, events(t, sent.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		if got := events(t, other.Body); len(got) == 0 || got[len(got)-1] != want[2] {
			t.Errorf("another follower got %q, want %q at the end", got, want[2])
		}
		s.check(t, call{method: "GET", path: "/api/v1/messages/2", token: ann.Access}, stopped)
		s.check(t, stop("2", ann.Access, "{}"), stopped)
	})
}

func TestStopWhatHasEnded(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`})
		for _, path := range []string{"/api/v1/messages/2/stop", "/api/messages/2/stop"} {
			s.check(t, call{method: "POST", path: path, token: ann.Access}, wanted{200, messageBody(2, "assistant", "Hello.", completed), nil})
		}
	})
}

func TestRegenerate(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ai := &numbered{}
		s := start(t, db, ai)
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"One"}`})
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi","chat_id":1}`})

		// As events.
		res := s.open(call{method: "POST", path: "/api/v1/messages/4/regenerate", token: ann.Access})
		defer res.Body.Close()
		want := []string{startEvent(1, 3, 5, "One"), "Answer 3.", completeEvent(5, "Answer 3.")}
		if diff := cmp.Diff(want, events(t, res.Body)); diff != "" || res.StatusCode != 200 {
			t.Errorf("%d, events (-want +got):\n%s", res.StatusCode, diff)
		}
		s.check(t, call{method: "GET", path: "/api/v1/messages/4", token: ann.Access}, notFound)
		// As JSON.
		s.check(t, call{method: "POST", path: "/api/v1/messages/5/regenerate", token: ann.Access, body: `{"why":"so"}`, header: wantsJSON},
			wanted{200, exchangeBody(1, 3, 6, "Answer 4."), map[string]string{"Location": ""}})
		// Later.
		s.check(t, call{method: "POST", path: "/api/messages/6/regenerate", token: ann.Access, header: wantsAsync},
			wanted{202, `{"chat_id":1,"user_message":` + messageBody(3, "user", "Hi", `"complete"`) + `,"message":` +
				messageBody(7, "assistant", "", `"streaming"`) + `}`, map[string]string{
				"Location": "/api/v1/messages/7/stream", "Preference-Applied": "respond-async",
			}})
		later := s.open(call{method: "GET", path: "/api/v1/messages/7/stream", token: ann.Access})
		defer later.Body.Close()
		want = []string{startEvent(1, 3, 7, "One"), "Answer 5.", completeEvent(7, "Answer 5.")}
		if diff := cmp.Diff(want, events(t, later.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
		s.check(t, call{method: "GET", path: "/api/v1/chats/1/messages", token: ann.Access}, wanted{200, `{"messages":[` + strings.Join([]string{
			messageBody(1, "user", "One", `"complete"`), messageBody(2, "assistant", "Answer 1.", completed),
			messageBody(3, "user", "Hi", `"complete"`), messageBody(7, "assistant", "Answer 5.", completed),
		}, ",") + `]}`, nil})

		history := []stream.Turn{{Role: "user", Content: "One"}, {Role: "assistant", Content: "Answer 1."}}
		var asked []stream.Prompt
		for id := int64(5); id <= 7; id++ {
			asked = append(asked, stream.Prompt{UserID: ann.ID, ChatID: 1, MessageID: id, Message: "Hi", History: history})
		}
		if diff := cmp.Diff(asked, ai.prompts()[2:]); diff != "" {
			t.Errorf("the backend was asked (-want +got):\n%s", diff)
		}
	})
}

func TestEdit(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ai := &numbered{}
		s := start(t, db, ai)
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"One"}`})
		for _, message := range []string{"Two", "Three"} {
			s.do(call{method: "POST", path: "/api/v1/chats/1/messages", token: ann.Access, body: `{"message":"` + message + `"}`})
		}

		// As events.
		res := s.open(call{method: "POST", path: "/api/v1/messages/3/edit", token: ann.Access, body: `{"message":" Zwei\n","role":"assistant"}`})
		defer res.Body.Close()
		want := []string{startEvent(1, 3, 7, "One"), "Answer 4.", completeEvent(7, "Answer 4.")}
		if diff := cmp.Diff(want, events(t, res.Body)); diff != "" || res.StatusCode != 200 {
			t.Errorf("%d, events (-want +got):\n%s", res.StatusCode, diff)
		}
		s.check(t, call{method: "GET", path: "/api/v1/chats/1", token: ann.Access}, wanted{200, `{"id":1,"title":"One","created_at":"<time>",` +
			`"message_count":4,"last_message_time":"<time>","messages":[` + strings.Join([]string{
			messageBody(1, "user", "One", `"complete"`), messageBody(2, "assistant", "Answer 1.", completed),
			messageBody(3, "user", " Zwei\n", `"complete"`), messageBody(7, "assistant", "Answer 4.", completed),
		}, ",") + `]}`, nil})
		// As JSON.
		s.check(t, call{method: "POST", path: "/api/messages/3/edit", token: ann.Access, body: `{"message":"Hi"}`, header: wantsJSON},
			wanted{200, exchangeBody(1, 3, 8, "Answer 5."), map[string]string{"Location": ""}})
		// Later.
		s.check(t, call{method: "POST", path: "/api/v1/messages/1/edit", token: ann.Access, body: `{"message":"Hey"}`, header: wantsAsync},
			wanted{202, `{"chat_id":1,"user_message":` + messageBody(1, "user", "Hey", `"complete"`) + `,"message":` +
				messageBody(9, "assistant", "", `"streaming"`) + `}`, map[string]string{
				"Location": "/api/v1/messages/9/stream", "Preference-Applied": "respond-async",
			}})
		later := s.open(call{method: "GET", path: "/api/v1/messages/9/stream", token: ann.Access})
		defer later.Body.Close()
		want = []string{startEvent(1, 1, 9, "One"), "Answer 6.", completeEvent(9, "Answer 6.")}
		if diff := cmp.Diff(want, events(t, later.Body)); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}

		history := []stream.Turn{{Role: "user", Content: "One"}, {Role: "assistant", Content: "Answer 1."}}
		asked := []stream.Prompt{
			{UserID: ann.ID, ChatID: 1, MessageID: 7, Message: " Zwei\n", History: history},
			{UserID: ann.ID, ChatID: 1, MessageID: 8, Message: "Hi", History: history},
			{UserID: ann.ID, ChatID: 1, MessageID: 9, Message: "Hey"},
		}
		if diff := cmp.Diff(asked, ai.prompts()[3:]); diff != "" {
			t.Errorf("the backend was asked (-want +got):\n%s", diff)
		}
	})
}

func TestBadRewrites(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		ai := &numbered{}
		s := start(t, db, ai)
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		for _, path := range []string{"/api/v1/messages", "/api/v1/chats/1/messages"} {
			s.do(call{method: "POST", path: path, token: ann.Access, body: `{"message":"Hi"}`})
		}
		list := call{method: "GET", path: "/api/v1/chats/1/messages", token: ann.Access}
		before := s.do(list).body
		invalid := func(code, name, detail string) wanted {
			return problem(400, code, detail, field(name, code, detail))
		}
		not := problem(409, "not_rewritable", "Only the last reply of a chat can be regenerated, and only a message of the user can be edited.", "")
		noMessage := problem(400, "missing_fields", "Fields are missing; errors names them.", field("message", "required", "message is required."))
		noJSON := problem(415, "unsupported_media_type", "Send the body as application/json in UTF-8, without a content coding.", "")
		noToken := problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", "").with("WWW-Authenticate", challenge)
		noForm := problem(406, "not_acceptable", "A reply is sent as text/event-stream or as application/json.", "")
		const edit = `{"message":"Ho"}`
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"regenerate an earlier reply":         {call{path: "2/regenerate", token: ann.Access}, not},
			"regenerate a message of the user":    {call{path: "3/regenerate", token: ann.Access}, not},
			"regenerate somebody else's":          {call{path: "4/regenerate", token: bob.Access}, forbidden},
			"regenerate none":                     {call{path: "4711/regenerate", token: ann.Access}, notFound},
			"regenerate what is no id":            {call{path: "04/regenerate", token: ann.Access}, notFound},
			"regenerate without a token":          {call{path: "4/regenerate"}, noToken},
			"regenerate as XML":                   {call{path: "4/regenerate", token: ann.Access, header: http.Header{"Accept": {"application/xml"}}}, noForm},
			"regenerate by a list":                {call{path: "4/regenerate", token: ann.Access, body: `[]`}, problem(400, "invalid_json", "The body must be one JSON object.", "")},
			"regenerate by a form":                {call{path: "4/regenerate", token: ann.Access, body: `a=b`, header: http.Header{"Content-Type": {"text/plain"}}}, noJSON},
			"regenerate under a key that is none": {call{path: "4/regenerate", token: ann.Access, header: http.Header{"Idempotency-Key": {""}}}, invalid("invalid_idempotency_key", "Idempotency-Key", "An Idempotency-Key is 1 to 255 visible ASCII characters.")},
			"edit a reply":                        {call{path: "4/edit", token: ann.Access, body: edit}, not},
			"edit somebody else's":                {call{path: "3/edit", token: bob.Access, body: edit}, forbidden},
			"edit none":                           {call{path: "4711/edit", token: ann.Access, body: edit}, notFound},
			"edit without a token":                {call{path: "3/edit", body: edit}, noToken},
			"edit as XML":                         {call{path: "3/edit", token: ann.Access, body: edit, header: http.Header{"Accept": {"application/xml"}}}, noForm},
			"edit without a body":                 {call{path: "3/edit", token: ann.Access}, noJSON},
			"edit without a message":              {call{path: "3/edit", token: ann.Access, body: `{}`}, noMessage},
			"edit to nothing":                     {call{path: "3/edit", token: ann.Access, body: `{"message":" \n"}`}, invalid("empty_message", "message", "message holds nothing but white space.")},
			"edit to a message too long":          {call{path: "3/edit", token: ann.Access, body: `{"message":"` + strings.Repeat("ß", 32_001) + `"}`}, invalid("message_too_long", "message", "message may have 32000 characters at most.")},
			"edit by a number":                    {call{path: "3/edit", token: ann.Access, body: `{"message":1}`}, problem(400, "invalid_json", "message must be a string.", field("message", "invalid_type", "message must be a string."))},
		} {
			t.Run(name, func(t *testing.T) {
				tt.call.method, tt.call.path = "POST", "/api/v1/messages/"+tt.call.path
				s.check(t, tt.call, tt.want)
			})
		}
		if diff := cmp.Diff(before, s.do(list).body); diff != "" || len(ai.prompts()) != 2 {
			t.Errorf("%d calls to the backend, want the 2 of before; messages (-want +got):\n%s", len(ai.prompts()), diff)
		}
	})
}

func TestNothingIsRewrittenUnderAReply(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, hangs(nil))
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsAsync})
		running := problem(409, "reply_in_progress", "The last message of this chat is still being answered.", "")
		running.body = strings.TrimSuffix(running.body, "}") + `,"message_id":2}`
		s.check(t, call{method: "POST", path: "/api/v1/messages/2/regenerate", token: ann.Access}, running)
		s.check(t, call{method: "POST", path: "/api/v1/messages/1/edit", token: ann.Access, body: `{"message":"Ho"}`}, running)
		// Stopping is what makes room.
		s.do(call{method: "POST", path: "/api/v1/messages/2/stop", token: ann.Access})
		if got := s.do(call{method: "POST", path: "/api/v1/messages/2/regenerate", token: ann.Access, header: wantsAsync}); got.status != 202 {
			t.Errorf("once it is stopped: %d %s, want 202", got.status, got.body)
		}
	})
}

func TestRewriteUnderAKey(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var asked atomic.Int64
		s := start(t, db, backend(func(ctx context.Context, p stream.Prompt, each func(stream.Chunk) error) error {
			asked.Add(1)
			return says("Hello.")(ctx, p, each)
		}))
		ann := s.signup("ann@example.com")
		under := func(key, path, body, accept string) call {
			return call{
				method: "POST", path: "/api/v1/messages/" + path, token: ann.Access, body: body,
				header: http.Header{"Idempotency-Key": {key}, "Accept": {accept}},
			}
		}
		reused := problem(422, "idempotency_key_reused", "This Idempotency-Key was used with another body.", "")
		for name, tt := range map[string]struct {
			path  func(userMessage, reply int64) string
			body  string
			other string
		}{
			"regenerate": {func(_, reply int64) string { return fmt.Sprint(reply, "/regenerate") }, ``, `{"again":1}`},
			"edit":       {func(user, _ int64) string { return fmt.Sprint(user, "/edit") }, `{"message":"Ho"}`, `{"message":"Hey"}`},
		} {
			t.Run(name, func(t *testing.T) {
				ex, err := s.hub.Send(t.Context(), models.NewTurn{UserID: ann.ID, Content: "Hi"})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.hub.Await(t.Context(), ann.ID, ex.Reply.ID); err != nil {
					t.Fatal(err)
				}
				before := asked.Load()
				path := tt.path(ex.User.ID, ex.Reply.ID)
				var first []string
				for range 3 {
					res := s.open(under("k", path, tt.body, "text/event-stream"))
					got := events(t, res.Body)
					res.Body.Close()
					if first == nil {
						first = got
					}
					if diff := cmp.Diff(first, got); diff != "" || len(got) != 3 {
						t.Errorf("events are %q and differ from those of the first time:\n%s", got, diff)
					}
				}
				if n := asked.Load() - before; n != 1 {
					t.Errorf("%d calls to the backend, want 1", n)
				}
				whole := s.do(under("k", path, tt.body, "application/json"))
				if whole.status != 200 || !strings.Contains(whole.body, `"content":"Hello."`) {
					t.Errorf("the same as JSON: %d %s, want the first reply", whole.status, whole.body)
				}
				s.check(t, under("k", path, tt.other, "*/*"), reused)
				s.check(t, under("k", "4711/"+name, tt.body, "*/*"), reused)
			})
		}
	})
}
