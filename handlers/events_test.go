package handlers_test

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

// What one device does, another one sees.
func TestEventsOfOtherDevices(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann := s.signup("ann@example.com")
		res := s.open(call{method: "GET", path: "/api/v1/events", token: ann.Access})
		defer res.Body.Close()
		if got := res.Header.Get("Content-Type"); res.StatusCode != http.StatusOK || got != "text/event-stream" {
			t.Fatalf("got %d %s", res.StatusCode, got)
		}
		lines := bufio.NewScanner(res.Body)
		next := func(n int) (got []string) {
			t.Helper()
			name := ""
			for len(got) < n && lines.Scan() {
				if e, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
					name = e
				}
				if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
					got = append(got, name+" "+stable(data))
				}
			}
			return got
		}
		want := func(events ...string) {
			t.Helper()
			if diff := cmp.Diff(events, next(len(events))); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		}
		want("ready {}")
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: wantsJSON})
		created := stable(s.do(call{method: "GET", path: "/api/v1/messages/1", token: ann.Access}).body)
		want(
			"chat_created "+chatBody(1, "Hi", 2),
			"message_created "+strings.TrimSpace(created),
			`message_start {"chat_id":1,"user_message_id":1,"message_id":2,"title":"Hi"}`,
			`message_token {"message_id":2,"text":"Hello."}`,
			`message_complete {"message_id":2,"full_text":"Hello.","finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}}`,
		)
		s.do(call{method: "PATCH", path: "/api/v1/chats/1", token: ann.Access, body: `{"title":"Greetings"}`})
		want("chat_updated " + chatBody(1, "Greetings", 2))
		s.do(call{method: "POST", path: "/api/v1/messages/1/edit", token: ann.Access, body: `{"message":"Hello?"}`, header: wantsJSON})
		edited := stable(s.do(call{method: "GET", path: "/api/v1/messages/1", token: ann.Access}).body)
		want(
			"message_updated "+strings.TrimSpace(edited),
			`messages_deleted {"chat_id":1,"after_message_id":1}`,
			"chat_updated "+chatBody(1, "Greetings", 2),
		)
		next(3) // the other reply
		s.do(call{method: "DELETE", path: "/api/v1/chats/1", token: ann.Access})
		want(`chat_deleted {"chat_id":1}`)
	})
}

func TestEventsRefuseWhatIsNoID(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Hello."))
		ann := s.signup("ann@example.com")
		for _, ids := range [][]string{{"x"}, {"5"}, {"1-0"}, {"", "1-0"}, {"1-0", ""}} {
			a := s.do(call{method: "GET", path: "/api/v1/events", token: ann.Access, header: http.Header{"Last-Event-Id": ids}})
			if !strings.Contains(a.body, `"code":"invalid_last_event_id"`) || a.status != http.StatusBadRequest {
				t.Errorf("%s: %s", ids, fmt.Sprint(a.status, a.body))
			}
		}
	})
}
