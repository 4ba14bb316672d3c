package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

var (
	notFound  = problem(404, "not_found", "There is no such thing.", "")
	forbidden = problem(403, "forbidden", "This belongs to someone else.", "")
)

func chatBody(id int, title string, messages int) string {
	last := `null`
	if messages > 0 {
		last = `"<time>"`
	}
	return fmt.Sprintf(`{"id":%d,"title":%q,"created_at":"<time>","message_count":%d,"last_message_time":%s}`, id, title, messages, last)
}

func TestCreateChat(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		invalid := func(detail string) wanted {
			return problem(400, "invalid_title", detail, field("title", "invalid_title", detail))
		}
		plain := http.Header{"Content-Type": {"text/plain"}}
		for name, tt := range map[string]struct {
			call  call
			want  wanted
			title string
		}{
			"without a body":           {call{}, wanted{status: 201}, "New Chat"},
			"without a title":          {call{body: `{}`}, wanted{status: 201}, "New Chat"},
			"with a title":             {call{body: `{"title":" Über Züge\u3000","id":99,"user_id":7}`}, wanted{status: 201}, "Über Züge"},
			"with the longest title":   {call{body: `{"title":"` + strings.Repeat("界", 200) + `"}`}, wanted{status: 201}, strings.Repeat("界", 200)},
			"with a blank title":       {call{body: `{"title":" \t"}`}, invalid("title must not be empty."), ""},
			"with a title too long":    {call{body: `{"title":"` + strings.Repeat("界", 201) + `"}`}, invalid("title is too long."), ""},
			"with a bell in the title": {call{body: `{"title":"a\u0007b"}`}, invalid("title must not hold control characters."), ""},
			"with another type": {call{body: `{}`, header: plain}, problem(415, "unsupported_media_type",
				"Send the body as application/json in UTF-8, without a content coding.", ""), ""},
			"without a body, of another type": {call{header: plain}, wanted{status: 201}, "New Chat"},
			"with a key that is none": {call{header: http.Header{"Idempotency-Key": {"a b"}}}, problem(400, "invalid_idempotency_key",
				"An Idempotency-Key is 1 to 255 visible ASCII characters.",
				field("Idempotency-Key", "invalid_idempotency_key", "An Idempotency-Key is 1 to 255 visible ASCII characters.")), ""},
		} {
			t.Run(name, func(t *testing.T) {
				c := tt.call
				c.method, c.path, c.token = "POST", "/api/v1/chats", ann.Access
				if tt.want.body != "" {
					s.check(t, c, tt.want)
					return
				}
				got := s.do(c)
				var chat struct{ ID int }
				decodeInto(t, got.body, &chat)
				if want := chatBody(chat.ID, tt.title, 0); got.status != 201 || stable(got.body) != want {
					t.Errorf("got %d %s, want 201 %s", got.status, got.body, want)
				}
			})
		}
	})
}

func TestCreateChatUnderAKey(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		create := func(path, token, key, body string) answer {
			return s.do(call{method: "POST", path: path, token: token, body: body, header: http.Header{"Idempotency-Key": {key}}})
		}
		first := create("/api/v1/chats", ann.Access, "k-1", `{"title":"One"}`)
		if want := chatBody(1, "One", 0); first.status != 201 || stable(first.body) != want {
			t.Fatalf("got %d %s, want 201 %s", first.status, first.body, want)
		}
		for _, path := range []string{"/api/v1/chats", "/api/chats", "/api/v1/chat/create"} {
			if again := create(path, ann.Access, "k-1", `{"title":"One"}`); again.status != 201 || again.body != first.body {
				t.Errorf("again at %s: %d %s, want what came first, %s", path, again.status, again.body, first.body)
			}
		}
		s.check(t, call{
			method: "POST", path: "/api/v1/chats", token: ann.Access, body: `{"title":"Two"}`, header: http.Header{"Idempotency-Key": {"k-1"}},
		}, problem(422, "idempotency_key_reused", "This Idempotency-Key was used with another body.", ""))
		if other := create("/api/v1/chats", bob.Access, "k-1", `{"title":"One"}`); other.status != 201 || other.body == first.body {
			t.Errorf("of another user: %d %s, want a chat of his own", other.status, other.body)
		}
	})
}

// unreadableQuery is the answer to a query that cannot be read as a whole.
var unreadableQuery = problem(400, "invalid_parameter", "In a query, % and ; that stand for themselves are written %25 and %3B.",
	field("query", "invalid_parameter", "In a query, % and ; that stand for themselves are written %25 and %3B."))

func TestChats(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Good ", "morning."))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		for _, title := range []string{"One", "Two", "Three"} {
			s.do(call{method: "POST", path: "/api/v1/chats", token: ann.Access, body: `{"title":"` + title + `"}`})
		}
		s.do(call{method: "POST", path: "/api/v1/chats/2/messages", token: ann.Access, body: `{"message":"Hello"}`})
		list := func(token, path string) call { return call{method: "GET", path: path, token: token} }
		limit := problem(400, "invalid_parameter", "limit must be a number from 1 to 200.",
			field("limit", "invalid_parameter", "limit must be a number from 1 to 200."))
		cursor := problem(400, "invalid_cursor", "cursor must be a next_cursor of this list.",
			field("cursor", "invalid_cursor", "cursor must be a next_cursor of this list."))
		all := wanted{200, `{"chats":[` + chatBody(2, "Two", 2) + `,` + chatBody(3, "Three", 0) + `,` + chatBody(1, "One", 0) + `]}`, nil}
		messages := `"messages":[{"id":1,"chat_id":2,"role":"user","content":"Hello","timestamp":"<time>","status":"complete"},` +
			`{"id":2,"chat_id":2,"role":"assistant","content":"Good morning.","timestamp":"<time>","status":"complete",` +
			`"finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}}]`
		two := strings.TrimSuffix(chatBody(2, "Two", 2), "}")
		for name, tt := range map[string]struct {
			call call
			want wanted
		}{
			"the list, latest activity first":         {list(ann.Access, "/api/v1/chats"), all},
			"the list at its old name":                {list(ann.Access, "/api/chat/list"), all},
			"unknown parameters are ignored":          {list(ann.Access, "/api/v1/chats?offset=2&cursor="), all},
			"the list of somebody without chats":      {list(bob.Access, "/api/v1/chats"), wanted{200, `{"chats":[]}`, nil}},
			"a page":                                  {list(ann.Access, "/api/v1/chats?limit=1"), wanted{200, `{"chats":[` + chatBody(2, "Two", 2) + `],"next_cursor":"<cursor>"}`, nil}},
			"a page of none":                          {list(ann.Access, "/api/v1/chats?limit=0"), limit},
			"a page too long":                         {list(ann.Access, "/api/v1/chats?limit=201"), limit},
			"a page of words":                         {list(ann.Access, "/api/v1/chats/2/messages?limit=ten"), limit},
			"a page of nothing":                       {list(ann.Access, "/api/v1/chats/2?limit="), limit},
			"a search that cannot be read":            {list(ann.Access, "/api/v1/chats?q=100%"), unreadableQuery},
			"a cursor that cannot be read":            {list(ann.Access, "/api/v1/chats/2/messages?limit=1;cursor=abc"), unreadableQuery},
			"a cursor that is none":                   {list(ann.Access, "/api/v1/chats?cursor=abc%00"), cursor},
			"a cursor of a chat list for messages":    {list(ann.Access, "/api/v1/chats/2/messages?cursor="+s.cursor(ann, "/api/v1/chats?limit=1")), cursor},
			"a chat":                                  {list(ann.Access, "/api/v1/chats/2"), wanted{200, two + `,` + messages + `}`, nil}},
			"a chat without messages":                 {list(ann.Access, "/api/v1/chats/1"), wanted{200, strings.TrimSuffix(chatBody(1, "One", 0), "}") + `,"messages":[]}`, nil}},
			"its messages":                            {list(ann.Access, "/api/v1/chats/2/messages"), wanted{200, `{` + messages + `}`, nil}},
			"its messages at their old name":          {list(ann.Access, "/api/chat/2/messages"), wanted{200, `{` + messages + `}`, nil}},
			"the latest message":                      {list(ann.Access, "/api/v1/chats/1/messages?limit=1"), wanted{200, `{"messages":[]}`, nil}},
			"one message":                             {list(ann.Access, "/api/v1/messages/1"), wanted{200, messages[len(`"messages":[`) : strings.Index(messages, "},")+1], nil}},
			"somebody else's chat":                    {list(bob.Access, "/api/v1/chats/2"), forbidden},
			"somebody else's messages":                {list(bob.Access, "/api/v1/chats/2/messages"), forbidden},
			"somebody else's empty chat":              {list(bob.Access, "/api/v1/chats/1/messages"), forbidden},
			"somebody else's message":                 {list(bob.Access, "/api/v1/messages/2"), forbidden},
			"a chat that does not exist":              {list(ann.Access, "/api/v1/chats/4711"), notFound},
			"a message that does not exist":           {list(ann.Access, "/api/v1/messages/4711"), notFound},
			"an id that is no number":                 {list(ann.Access, "/api/v1/chats/two"), notFound},
			"an id with a sign":                       {list(ann.Access, "/api/v1/chats/+2"), notFound},
			"an id with a zero":                       {list(ann.Access, "/api/v1/chats/02"), notFound},
			"an id beyond 64 bits":                    {list(ann.Access, "/api/v1/chats/18446744073709551618"), notFound},
			"an id with NUL and a line break":         {list(ann.Access, "/api/v1/chats/2%00%0d%0a"), notFound},
			"a user who does not exist, on the way":   {list(s.tokenOf(99), "/api/v1/chats/2"), forbidden},
			"a user who does not exist, and the chat": {list(s.tokenOf(99), "/api/v1/chats/4711"), signedOut("The access token is not valid.")},
			"a chat for a user who does not exist":    {call{method: "POST", path: "/api/v1/chats", token: s.tokenOf(99)}, signedOut("The access token is not valid.")},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, tt.call, tt.want) })
		}
	})
}

func signedOut(detail string) wanted {
	return problem(401, "invalid_token", detail, "").with("WWW-Authenticate",
		`Bearer realm="parley", error="invalid_token", error_description="`+detail+`"`)
}

// cursor is the next_cursor of a list.
func (s *service) cursor(a account, path string) string {
	s.t.Helper()
	var page struct {
		Next string `json:"next_cursor"`
	}
	decodeInto(s.t, s.do(call{method: "GET", path: path, token: a.Access}).body, &page)
	return page.Next
}

// The pages put together are the whole list, each element once.
func TestPages(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Yes."))
		ann := s.signup("ann@example.com")
		for range 5 {
			s.do(call{method: "POST", path: "/api/v1/chats", token: ann.Access})
		}
		for range 3 {
			s.do(call{method: "POST", path: "/api/v1/chats/1/messages", token: ann.Access, body: `{"message":"And?"}`})
		}
		for path, want := range map[string][]string{
			"/api/v1/chats":            {"1", "5", "4", "3", "2"},
			"/api/v1/chats/1/messages": {"5 6", "3 4", "1 2"},
		} {
			var got []string
			next := ""
			for {
				var page struct {
					Chats    []struct{ ID int }
					Messages []struct{ ID int }
					Next     string `json:"next_cursor"`
				}
				limit := 1 + strings.Count(path, "messages")
				a := s.do(call{method: "GET", path: fmt.Sprintf("%s?limit=%d&cursor=%s", path, limit, next), token: ann.Access})
				decodeInto(t, a.body, &page)
				var ids []string
				for _, x := range append(page.Chats, page.Messages...) {
					ids = append(ids, fmt.Sprint(x.ID))
				}
				got = append(got, strings.Join(ids, " "))
				if next = page.Next; next == "" {
					break
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s: pages %q, want %q", path, got, want)
			}
		}
	})
}

func TestRenameAndDeleteChat(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/chats", token: ann.Access})
		rename := func(a account, path, body string) call {
			return call{method: "PATCH", path: path, token: a.Access, body: body}
		}
		remove := func(a account, path string) call { return call{method: "DELETE", path: path, token: a.Access} }
		for _, tt := range []struct {
			name string
			call call
			want wanted
		}{
			{"a title", rename(ann, "/api/v1/chats/1", `{"title":" Trains "}`), wanted{200, chatBody(1, "Trains", 0), nil}},
			{"no title", rename(ann, "/api/v1/chats/1", `{}`), problem(400, "missing_fields",
				"Fields are missing; errors names them.", field("title", "required", "title is required."))},
			{"an empty title", rename(ann, "/api/v1/chats/1", `{"title":""}`), problem(400, "invalid_title",
				"title must not be empty.", field("title", "invalid_title", "title must not be empty."))},
			{"no body", call{method: "PATCH", path: "/api/v1/chats/1", token: ann.Access}, problem(415, "unsupported_media_type",
				"Send the body as application/json in UTF-8, without a content coding.", "")},
			{"somebody else's", rename(bob, "/api/v1/chats/1", `{"title":"Mine"}`), forbidden},
			{"none", rename(ann, "/api/v1/chats/2", `{"title":"Mine"}`), notFound},
			{"somebody else deletes", remove(bob, "/api/v1/chats/1"), forbidden},
			{"none to delete", remove(ann, "/api/v1/chats/2"), notFound},
			{"delete", remove(ann, "/api/v1/chats/1"), wanted{204, "", map[string]string{"Content-Type": ""}}},
			{"delete again", remove(ann, "/api/v1/chats/1"), notFound},
			{"read", call{method: "GET", path: "/api/v1/chats/1", token: ann.Access}, notFound},
		} {
			t.Run(tt.name, func(t *testing.T) { s.check(t, tt.call, tt.want) })
		}
	})
}
