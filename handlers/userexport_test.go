package handlers_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

var exportFile = call{method: "GET", path: "/api/v1/user/export"}

func TestExport(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says("Fine, \"thanks\" <& you>."))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		json := http.Header{"Accept": {"application/json"}}
		s.do(call{method: "POST", path: "/api/v1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: json})
		s.do(call{method: "POST", path: "/api/v1/messages", token: bob.Access, body: `{"message":"A secret of Bob's"}`, header: json})
		s.do(call{method: "POST", path: "/api/v1/chats", token: ann.Access, body: `{"title":"Empty"}`})
		s.do(call{method: "POST", path: "/api/v1/chats/1/messages", token: ann.Access, body: `{"message":"How are you?"}`, header: json})
		s.do(call{method: "POST", path: "/api/v1/auth/reset-password-request", body: `{"email":"ann@example.com"}`, header: http.Header{"X-Request-Id": {"r2"}}})

		c := exportFile
		c.token = ann.Access
		got := s.do(c)
		const created = `"created_at":"<time>"`
		message := func(id, chat int, role, content string) string {
			finish := ""
			if role == "assistant" {
				finish = `,"finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}`
			}
			return fmt.Sprintf(`{"id":%d,"chat_id":%d,"role":%q,"content":%s,"timestamp":"<time>","status":"complete"%s}`, id, chat, role, content, finish)
		}
		used := func(chat, message int) string {
			return fmt.Sprintf(`{"chat_id":%d,"message_id":%d,"day":"<day>","model":"","input_tokens":3,"output_tokens":2,"estimated":false,`+created+`}`,
				chat, message)
		}
		const fine = `"Fine, \"thanks\" \u003c\u0026 you\u003e."`
		want := `{"exported_at":"<time>","account":` + annBody +
			`,"devices":[{"id":1,"name":"Go-http-client/1.1","ip":"127.0.0.1",` + created + `,"last_seen_at":"<time>","current":true}]` +
			`,"chats":[{"chat":{"id":1,"title":"Hi",` + created + `,"message_count":4,"last_message_time":"<time>"},"messages":[` +
			strings.Join([]string{
				message(1, 1, "user", `"Hi"`), message(2, 1, "assistant", fine),
				message(5, 1, "user", `"How are you?"`), message(6, 1, "assistant", fine),
			}, ",") +
			`]},{"chat":{"id":3,"title":"Empty",` + created + `,"message_count":0,"last_message_time":null},"messages":[]}]` +
			`,"recordings":[]` +
			`,"usage":[` + used(1, 2) + `,` + used(1, 6) + `]` +
			`,"audit":[{"at":"<time>","action":"account.created","detail":"","by_you":false,"ip":"127.0.0.1","request_id":"<id>"}` +
			`,{"at":"<time>","action":"password.reset_requested","detail":"","by_you":false,"ip":"127.0.0.1","request_id":"r2"}]}`
		file := regexp.MustCompile(`"day":"\d{4}-\d\d-\d\d"`).ReplaceAllString(stable(got.body), `"day":"<day>"`)
		if diff := cmp.Diff(want, file); diff != "" || got.status != 200 {
			t.Errorf("%d, file (-want +got):\n%s", got.status, diff)
		}
		for name, want := range map[string]string{
			"Content-Type": "application/json", "Content-Disposition": `attachment; filename="parley-export.json"`, "Cache-Control": "no-store",
		} {
			if v := got.header.Get(name); v != want {
				t.Errorf("%s is %q, want %q", name, v, want)
			}
		}
		if strings.Contains(got.body, "argon2") || strings.Contains(got.body, "Bob") {
			t.Errorf("the file holds what is not hers to see: %s", got.body)
		}
		s.check(t, exportFile, problem(401, "missing_token", "Send an access token: Authorization: Bearer ...", ""))
	})
}

// What an administrator has done is hers to know, and from where it was not.
func TestAnExportKeepsWhatIsOthers(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		admin, ann := s.signup("root@example.com"), s.signup("ann@example.com")
		if _, err := db.EndSessions(t.Context(), ann.ID, "x", 0, models.By{UserID: admin.ID, IP: "203.0.113.9", RequestID: "adm"}); err != nil {
			t.Fatal(err)
		}
		c := exportFile
		c.token = s.tokenOf(ann.ID)
		got := s.do(c).body
		if want := `"action":"sessions.ended","detail":"","by_you":false}`; !strings.Contains(got, want) {
			t.Errorf("the file lacks %s: %s", want, got)
		}
		for _, secret := range []string{"203.0.113.9", "root@example.com", `"adm"`} {
			if strings.Contains(got, secret) {
				t.Errorf("the file holds %s: %s", secret, got)
			}
		}
	})
}

// fill gives a user one chat with many long messages, and returns what there is
// of them.
func fill(t *testing.T, db *models.DB, userID int64, messages, size int) {
	t.Helper()
	chat, _, err := db.CreateChat(t.Context(), userID, "Long", true, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Bun().NewRaw(`INSERT INTO messages (chat_id, role, content, status, created_at)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		SELECT ?, 'user', ?, 'complete', created_at FROM n, users WHERE users.id = ?`,
		messages, chat.ID, strings.Repeat("x", size), userID).Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

func TestALongExportIsWhole(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		for _, n := range []int{99, 100, 101, 1000} { // around a page
			fill(t, db, ann.ID, n, 10)
		}
		c := exportFile
		c.token = ann.Access
		var out struct {
			Chats []struct {
				Chat     struct{ ID int64 }
				Messages []struct {
					ID     int64
					ChatID int64 `json:"chat_id"`
				}
			}
		}
		decodeInto(t, s.do(c).body, &out)
		var got []int
		last := int64(0)
		for _, chat := range out.Chats {
			got = append(got, len(chat.Messages))
			for _, m := range chat.Messages {
				if m.ID <= last || m.ChatID != chat.Chat.ID {
					t.Fatalf("message %d of chat %d comes after %d in chat %d", m.ID, m.ChatID, last, chat.Chat.ID)
				}
				last = m.ID
			}
		}
		if diff := cmp.Diff([]int{99, 100, 101, 1000}, got); diff != "" {
			t.Errorf("messages of each chat (-want +got):\n%s", diff)
		}
	})
}

// A database that fails in the middle of an export breaks it off, in a way that
// no client takes for its end.
func TestAnExportThatFailsInTheMiddle(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		fill(t, db, ann.ID, 1000, 32_000) // more than any socket keeps
		c := exportFile
		c.token = ann.Access
		res := s.open(c)
		defer res.Body.Close()
		head := make([]byte, 64<<10)
		if _, err := io.ReadFull(res.Body, head); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(res.Body)
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the file ends with %v, want an unexpected end", err)
		}
		if whole := slices.Concat(head, rest); json.Valid(whole) || bytes.HasSuffix(whole, []byte("}\n")) {
			t.Errorf("the file looks whole, of %d bytes", len(whole))
		}
		line := s.requests()
		last := line[len(line)-1]
		if last["route"] != "/api/v1/user/export" || last["code"] != "unavailable" || last["level"] != "ERROR" {
			t.Errorf("the line is %v, want one that says that the database failed", last)
		}
		if regexp.MustCompile("x{100}").MatchString(s.log.String()) {
			t.Error("the log holds what a message says")
		}
	})
}

// A file that is read slowly outlives the session that asked for it, and the
// account too: after a wipe the ids in it are somebody else's.
func TestAnExportEndsWithItsSession(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		fill(t, db, s.signup("ann@example.com").ID, 1000, 32_000) // more than any socket keeps
		for name, path := range map[string]string{"of the user": exportFile.path, "of a chat": "/api/v1/chats/1/export"} {
			t.Run(name, func(t *testing.T) {
				ann := s.accountOf(s.login("ann@example.com", password, nil))
				res := s.open(call{method: "GET", path: path, token: ann.Access})
				defer res.Body.Close()
				head := make([]byte, 64<<10)
				if _, err := io.ReadFull(res.Body, head); err != nil {
					t.Fatal(err)
				}
				if a := s.do(call{method: "POST", path: "/api/v1/auth/logout", token: ann.Access}); a.status != 200 {
					t.Fatalf("logout: %d %s", a.status, a.body)
				}
				rest, err := io.ReadAll(res.Body)
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("the file ends after %d bytes with %v, want an unexpected end", len(head)+len(rest), err)
				}
			})
		}
	})
}
