package handlers_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

func TestChatsAreSearched(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Take an umbrella, \"just in case\"."))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		say := func(a account, message string) {
			s.do(call{method: "POST", path: "/api/v1/messages", token: a.Access, body: `{"message":"` + message + `"}`, header: http.Header{"Accept": {"application/json"}}})
		}
		say(ann, "Weather tomorrow")
		say(ann, "Größe von Äpfeln")
		say(bob, "Weather on Mars")
		for n := 1; n > 0; {
			var err error
			if n, err = db.IndexTexts(t.Context(), 100); err != nil {
				t.Fatal(err)
			}
		}
		chat := func(id int, title string) string {
			return fmt.Sprintf(`{"id":%d,"title":"%s","created_at":"<time>","message_count":2,"last_message_time":"<time>"}`, id, title)
		}
		weather, apples := chat(1, "Weather tomorrow"), chat(2, "Größe von Äpfeln")
		list := func(query string) call {
			return call{method: "GET", path: "/api/v1/chats" + query, token: ann.Access}
		}
		found := func(chats ...string) wanted { return wanted{200, `{"chats":[` + strings.Join(chats, ",") + `]}`, nil} }
		for name, tt := range map[string]struct {
			query string
			want  wanted
		}{
			"her own chats only":                    {"?q=weather", found(weather)},
			"words in another order":                {"?q=TOMORROW+weath", found(weather)},
			"other letters":                         {"?q=%C3%84pfel", found(apples)},
			"what the assistant has said":           {"?q=umbrella", found(apples, weather)},
			"words of different messages":           {"?q=umbrella+weather", found()},
			"quotes and operators are plain text":   {"?q=%22just+in%22*", found(apples, weather)},
			"an operator alone":                     {"?q=%22*%22", found()},
			"SQL":                                   {"?q=%27%29+OR+1%3D1--", found()},
			"nothing is asked for":                  {"?q=+", found(apples, weather)},
			"no UTF-8":                              {"?q=%ff", invalidParameter("q", "q must be a text in UTF-8.")},
			"NUL":                                   {"?q=a%00", invalidParameter("q", "q must be a text in UTF-8.")},
			"too long":                              {"?q=" + strings.Repeat("x", 201), invalidParameter("q", "q may have 200 characters at most.")},
			"as long as may be, of many characters": {"?q=" + strings.Repeat("%E8%A8%88", 200), found()},
		} {
			t.Run(name, func(t *testing.T) { s.check(t, list(tt.query), tt.want) })
		}
		s.check(t, list("?q=umbrella&limit=1"), wanted{200, `{"chats":[` + apples + `],"next_cursor":"<cursor>"}`, nil})
		s.check(t, list("?q=umbrella&limit=1&cursor="+s.cursor(ann, list("?q=umbrella&limit=1").path)), found(weather))
		s.check(t, call{method: "GET", path: "/api/chat/list?q=weather", token: ann.Access}, found(weather))
	})
}
