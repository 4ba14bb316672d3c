package handlers_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

// hostileAnswer would end a fence, a file, a page.
const hostileAnswer = "```\n## User, 2026-01-01\n~~~~\n`````\n</pre><script>alert(1)</script>\r\n\n[x]: javascript:0\n\"quoted\" \\ *and* `so` on"

// markdownTime is a time as the Markdown has it.
var markdownTime = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC`)

func TestAChatIsExported(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says(hostileAnswer))
		ann, bob := s.signup("ann@example.com"), s.signup("bob@example.com")
		s.do(call{method: "POST", path: "/api/v1/chats", token: ann.Access, body: `{"title":"# <b>1. [Plans](x)* \\ & ünd 計画"}`})
		s.do(call{method: "POST", path: "/api/v1/chats/1/messages", token: ann.Access, body: `{"message":"Hi"}`, header: http.Header{"Accept": {"application/json"}}})
		export := func(accept ...string) call {
			return call{method: "GET", path: "/api/v1/chats/1/export", token: ann.Access, header: http.Header{"Accept": accept}}
		}

		const asJSON = `{"exported_at":"<time>","chat":{"id":1,"title":"# \u003cb\u003e1. [Plans](x)* \\ \u0026 ünd 計画","created_at":"<time>",` +
			`"message_count":2,"last_message_time":"<time>"},"messages":[` +
			`{"id":1,"chat_id":1,"role":"user","content":"Hi","timestamp":"<time>","status":"complete"},` +
			`{"id":2,"chat_id":1,"role":"assistant","content":"` + "```\\n## User, 2026-01-01\\n~~~~\\n`````\\n" + `\u003c/pre\u003e\u003cscript\u003ealert(1)\u003c/script\u003e\r\n\n` +
			`[x]: javascript:0\n\"quoted\" \\ *and* ` + "`so`" + ` on","timestamp":"<time>","status":"complete","finish_reason":"stop","usage":{"input_tokens":3,"output_tokens":2}}]}`
		jsonFile := wanted{200, asJSON, map[string]string{
			"Content-Type": "application/json", "Content-Disposition": `attachment; filename="parley-chat-1.json"`, "Vary": "Origin, Accept", "Cache-Control": "no-store",
		}}
		for _, accept := range [][]string{nil, {"*/*"}, {"application/json"}, {"text/markdown;q=0.5, application/json"}, {"text/markdown;q=0, */*"}} {
			s.check(t, export(accept...), jsonFile)
		}

		const asMarkdown = "# \\# \\<b\\>1\\. \\[Plans\\]\\(x\\)\\* \\\\ \\& ünd 計画\n\nBegun <time>.\n" +
			"\n## User, <time>\n\n```\nHi\n```\n" +
			"\n## Assistant, <time>\n\n``````\n" + hostileAnswer + "\n``````\n"
		for _, accept := range []string{"text/markdown", "text/markdown, application/json;q=0.9", "text/*, */*;q=0.1", "application/json;q=0, */*"} {
			got := s.do(export(accept))
			body := markdownTime.ReplaceAllString(got.body, "<time>")
			if diff := cmp.Diff(asMarkdown, body); diff != "" || got.status != 200 {
				t.Errorf("%s: %d, file (-want +got):\n%s", accept, got.status, diff)
			}
			head := []string{got.header.Get("Content-Type"), got.header.Get("Content-Disposition"), strings.Join(got.header.Values("Vary"), ", ")}
			if diff := cmp.Diff([]string{"text/markdown; charset=utf-8", `attachment; filename="parley-chat-1.md"`, "Origin, Accept"}, head); diff != "" {
				t.Errorf("%s: head (-want +got):\n%s", accept, diff)
			}
		}

		s.check(t, export("image/png"), problem(406, "not_acceptable", "A chat is exported as application/json or as text/markdown.", ""))
		theirs := export()
		theirs.token = bob.Access
		s.check(t, theirs, problem(403, "forbidden", "This belongs to someone else.", ""))
		for _, id := range []string{"99", "0", "x"} {
			c := export()
			c.path = "/api/chats/" + id + "/export"
			s.check(t, c, problem(404, "not_found", "There is no such thing.", ""))
		}
	})
}

// A chat of many pages, in order, and one that is empty.
func TestALongChatIsExportedWhole(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := start(t, db, says())
		ann := s.signup("ann@example.com")
		s.do(call{method: "POST", path: "/api/v1/chats", token: ann.Access})
		const n = 205
		empty := s.do(call{method: "GET", path: "/api/v1/chats/1/export", token: ann.Access})
		if want := `"message_count":0,"last_message_time":null},"messages":[]}` + "\n"; empty.status != 200 || !strings.HasSuffix(empty.body, want) {
			t.Errorf("an empty chat is %d %s", empty.status, empty.body)
		}
		for i := range n {
			_, err := db.Bun().NewRaw(`INSERT INTO messages (chat_id, role, content, status, created_at) VALUES (1, 'user', ?, 'stopped', '2026-01-02 03:04:05+00:00')`,
				fmt.Sprint("message ", i)).Exec(t.Context())
			if err != nil {
				t.Fatal(err)
			}
		}
		got := s.do(call{method: "GET", path: "/api/v1/chats/1/export", token: ann.Access, header: http.Header{"Accept": {"text/markdown"}}})
		var want strings.Builder
		for i := range n {
			fmt.Fprintf(&want, "\n## User, 2026-01-02 03:04:05 UTC (stopped)\n\n```\nmessage %d\n```\n", i)
		}
		if _, messages, _ := strings.Cut(got.body, "UTC.\n"); messages != want.String() {
			t.Errorf("the file is %s", got.body)
		}
	})
}
