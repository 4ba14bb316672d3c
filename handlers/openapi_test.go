package handlers_test

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

func TestTheDescriptionIsThatOfTheRoutes(t *testing.T) {
	t.Parallel()
	d, err := description()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	_, api := build(t, modelstest.New(t, models.SQLite), says())
	type operation struct {
		Method, Path   string
		Keyed, Limited bool
	}
	var want, got []operation
	for _, op := range handlers.Operations(api) {
		want = append(want, operation(op))
	}
	for _, op := range d.operations {
		got = append(got, operation{
			op.method, op.path,
			op.Parameters.GetByInAndName("header", "Idempotency-Key") != nil,
			op.Responses.Status(http.StatusTooManyRequests) != nil && op.describes("RateLimit"),
		})
	}
	byPath := func(a, b operation) int { return strings.Compare(a.Path+" "+a.Method, b.Path+" "+b.Method) }
	slices.SortFunc(want, byPath)
	slices.SortFunc(got, byPath)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("operations (-in routes.go +in openapi.yaml):\n%s", diff)
	}
}

// Each schema and each body can be shown by an example: its own, or one that is
// made of those of its parts, as a viewer does.
func TestTheDescriptionHasExamples(t *testing.T) {
	t.Parallel()
	d, err := description()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	var schemas []string
	for name := range object(object(d.tree["components"])["schemas"]) {
		schemas = append(schemas, pointer("components", "schemas", name))
	}
	for _, op := range d.operations {
		bodies := []string{op.pointer + "/requestBody"}
		for status := range op.Responses.Map() {
			bodies = append(bodies, op.pointer+"/responses/"+status)
		}
		for _, at := range bodies {
			body, at := d.at(at)
			for mediaType, media := range object(object(body)["content"]) {
				if m := object(media); m["schema"] != nil && m["example"] == nil {
					schemas = append(schemas, at+pointer("content", mediaType, "schema")[1:])
				}
			}
		}
	}
	slices.Sort(schemas)
	for _, at := range slices.Compact(schemas) {
		example, err := d.example(at)
		if err == nil {
			err = d.validate(at, example)
		}
		if err != nil {
			t.Errorf("%s: %v", at, err)
		}
	}
}

// example returns an example of what the schema that a pointer leads to describes.
func (d *document) example(at string) (any, error) {
	node, at := d.at(at)
	schema := object(node)
	if own, _ := schema["examples"].([]any); len(own) > 0 {
		return own[0], d.validate(at, own[0])
	}
	if value, ok := schema["const"]; ok {
		return value, nil
	}
	for _, keyword := range []string{"oneOf", "allOf"} {
		parts, _ := schema[keyword].([]any)
		if _, whole := schema["properties"]; len(parts) == 1 && !whole || keyword == "oneOf" && len(parts) > 0 {
			return d.example(at + "/" + keyword + "/0")
		}
	}
	if schema["type"] == "array" {
		item, err := d.example(at + "/items")
		return []any{item}, err
	}
	if _, described := schema["contentSchema"]; described {
		data, err := d.example(at + "/contentSchema")
		if err != nil {
			return nil, err
		}
		text, err := json.Marshal(data)
		return string(text), err
	}
	if schema["properties"] == nil && schema["allOf"] == nil {
		return nil, errors.New("there is no example at " + at)
	}
	made := make(map[string]any)
	for name := range object(schema["properties"]) {
		value, err := d.example(at + pointer("properties", name)[1:])
		if err != nil {
			return nil, err
		}
		made[name] = value
	}
	parts, _ := schema["allOf"].([]any)
	for i := range parts {
		part, err := d.example(fmt.Sprintf("%s/allOf/%d", at, i))
		if err != nil {
			return nil, err
		}
		maps.Copy(made, object(part))
	}
	return made, nil
}

// Who reads of an answer reads which codes it may have.
func TestTheDescriptionNamesCodes(t *testing.T) {
	t.Parallel()
	d, err := description()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	for _, op := range d.operations {
		for status := range op.Responses.Map() {
			response, at := d.at(op.pointer + "/responses/" + status)
			at += pointer("content", "application/problem+json", "schema", "allOf", "1", "properties", "code", "enum")[1:]
			list, _ := d.at(at)
			codes, _ := list.([]any)
			if _, said := object(object(response)["content"])["application/problem+json"]; said != (len(codes) > 0) {
				t.Errorf("%s %s: %s has %d codes", op.method, op.path, status, len(codes))
			}
			for _, code := range codes {
				if text := object(response)["description"].(string); !strings.Contains(text, fmt.Sprintf("`%s`", code)) {
					t.Errorf("%s %s: %s does not name %s: %s", op.method, op.path, status, code, text)
				}
			}
		}
	}
}

// The examples of whole streams are such streams.
func TestTheDescriptionHasStreams(t *testing.T) {
	t.Parallel()
	d, err := description()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	for _, name := range []string{"ReplyStream", "VoiceStream", "FeedStream"} {
		at := pointer("components", "schemas", name)
		example, err := d.example(at)
		if err != nil {
			t.Fatal(err)
		}
		events := strings.Split(strings.TrimSuffix(example.(string), "\n\n"), "\n\n")
		if len(events) < 4 {
			t.Errorf("%s: %d events, want some", name, len(events))
		}
		for _, event := range events {
			if err := d.event(at, event); err != nil {
				t.Errorf("%s: %v in the event:\n%s", name, err, event)
			}
		}
	}
}

// What the tests of the handlers lean on: the judge lets nothing pass that is
// not described.
func TestTheDescriptionJudges(t *testing.T) {
	t.Parallel()
	d, err := description()
	if err != nil {
		t.Fatalf("openapi.yaml: %v", err)
	}
	answer := func(status int, mediaType, body string, fields ...string) func() error {
		return func() error {
			header := http.Header{"X-Request-Id": {"abc"}, "Content-Type": {mediaType}}
			for field := range slices.Chunk(fields, 2) {
				header.Set(field[0], field[1])
			}
			want, err := d.head("GET", "/api/v1/chats", status, header)
			if err != nil {
				return err
			}
			return d.validateJSON(want.pointer, []byte(body))
		}
	}
	const (
		chat    = `{"id":7,"title":"T","created_at":"2026-11-21T23:09:08Z","message_count":0,"last_message_time":null}`
		problem = `"type":"about:blank","title":"Unauthorized","status":401,"detail":"D.","message":"D.","request_id":"abc"`
	)
	event := func(event string) func() error {
		return func() error { return d.event("#/components/schemas/ReplyStream", event) }
	}
	request := func(method, path, body string) func() error {
		return func() error {
			r := httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody)
			r.Header.Set("Content-Type", "application/json")
			return d.request(r, []byte(body))
		}
	}
	for name, tt := range map[string]struct {
		judge func() error
		fine  bool
	}{
		"an answer":                        {answer(200, "application/json", `{"chats":[`+chat+`]}`), true},
		"its type with a parameter":        {answer(200, "application/json; charset=utf-8", `{"chats":[]}`), true},
		"another status":                   {answer(201, "application/json", `{"chats":[]}`), false},
		"another type":                     {answer(200, "text/json", `{"chats":[]}`), false},
		"another header field":             {answer(200, "application/json", `{"chats":[]}`, "X-Chats", "0"), false},
		"a malformed header field":         {answer(200, "application/json", `{"chats":[]}`, "X-Request-Id", "a b"), false},
		"a field that is missing":          {answer(200, "application/json", `{}`), false},
		"another field":                    {answer(200, "application/json", `{"chats":[],"total":0}`), false},
		"another field further down":       {answer(200, "application/json", `{"chats":[`+strings.Replace(chat, "{", `{"x":1,`, 1)+`]}`), false},
		"a time that is not in UTC":        {answer(200, "application/json", `{"chats":[`+strings.Replace(chat, "08Z", "08+01:00", 1)+`]}`), false},
		"no JSON":                          {answer(200, "application/json", `{"chats":[]}{}`), false},
		"a problem":                        {answer(401, "application/problem+json", `{`+problem+`,"code":"missing_token"}`, "WWW-Authenticate", "Bearer x"), true},
		"a problem without its challenge":  {answer(401, "application/problem+json", `{`+problem+`,"code":"missing_token"}`), false},
		"a problem of another operation":   {answer(401, "application/problem+json", `{`+problem+`,"code":"invalid_ticket"}`, "WWW-Authenticate", "Bearer x"), false},
		"an event":                         {event("event: message_token\nid: 1-1\ndata: {\"text\":\"a\"}"), true},
		"a comment":                        {event(":"), true},
		"a time to come back":              {event("retry: 1200"), true},
		"an event of another stream":       {event("event: ready\nid: 1\ndata: {}"), false},
		"an event without an id":           {event("event: message_token\ndata: {\"text\":\"a\"}"), false},
		"an event with a malformed id":     {event("event: message_token\nid: 1\ndata: {\"text\":\"a\"}"), false},
		"an event with another field":      {event("event: message_token\nid: 1-1\ndata: {\"text\":\"a\",\"x\":1}"), false},
		"an event with the data of others": {event("event: message_token\nid: 1-1\ndata: {\"message_id\":1,\"attempt\":2}"), false},
		"an event field that is none":      {event("event: message_token\nid: 1-1\nx: y\ndata: {\"text\":\"a\"}"), false},
		"a request":                        {request("POST", "/api/chat/send", `{"message":"Hi","x":1}`), true},
		"a request without a body":         {request("POST", "/api/chat/send", ``), false},
		"a request that lacks a field":     {request("POST", "/api/chat/send", `{"chat_id":1}`), false},
		"a request with another type":      {request("POST", "/api/chat/send", `{"message":1}`), false},
		"a parameter that is no number":    {request("GET", "/api/v1/chats?limit=x", ``), false},
		"a parameter that is too large":    {request("GET", "/api/v1/chats?limit=201", ``), false},
		"an id that is none":               {request("GET", "/api/v1/chats/0", ``), false},
	} {
		if err := tt.judge(); (err == nil) != tt.fine {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServeTheDescription(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	file, err := os.ReadFile("openapi/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct{ path, coding string }{
		"where the contract has it": {"/api/openapi.yaml", "identity"},
		"under the API":             {"/api/v1/openapi.yaml", "identity"},
		"compressed":                {"/api/openapi.yaml", "br, GZIP;q=0.5"},
		"not compressed":            {"/api/openapi.yaml", "br, gzip;q=0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := s.do(call{method: "GET", path: tt.path, header: http.Header{"Accept-Encoding": {tt.coding}}})
			if compressed := strings.Contains(tt.coding, "GZIP"); compressed != (got.header.Get("Content-Encoding") == "gzip") {
				t.Errorf("the coding is %q", got.header.Get("Content-Encoding"))
			}
			if body := uncompressed(t, got); got.status != 200 || body != string(file) {
				t.Errorf("%d with %d bytes, want 200 with the file", got.status, len(body))
			}
			for name, want := range map[string]string{
				"Content-Type": "application/yaml", "Cache-Control": "no-cache", "Vary": "Origin, Accept-Encoding",
			} {
				if v := strings.Join(got.header.Values(name), ", "); v != want {
					t.Errorf("%s is %q, want %q", name, v, want)
				}
			}
			etag := got.header.Get("Etag")
			for name, known := range map[string]struct {
				tags   []string
				status int
			}{
				"the same":           {[]string{etag}, 304},
				"weakly":             {[]string{"W/" + etag}, 304},
				"one of several":     {[]string{`"x", ` + etag, `"y"`}, 304},
				"any":                {[]string{"*"}, 304},
				"another":            {[]string{`"x"`}, 200},
				"none":               {[]string{""}, 200},
				"without its quotes": {[]string{strings.Trim(etag, `"`)}, 200},
			} {
				header := http.Header{"If-None-Match": known.tags, "Accept-Encoding": {tt.coding}}
				again := s.do(call{method: "GET", path: tt.path, header: header})
				if again.status != known.status || again.header.Get("Etag") != etag {
					t.Errorf("%s: %d %s, want %d %s", name, again.status, again.header.Get("Etag"), known.status, etag)
				}
			}
		})
	}
}

// uncompressed is the body of an answer without its content coding.
func uncompressed(t *testing.T, a answer) string {
	t.Helper()
	if a.header.Get("Content-Encoding") != "gzip" {
		return a.body
	}
	r, err := gzip.NewReader(strings.NewReader(a.body))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// The viewer is Swagger UI 5.35.0, as openapi/fetch.sh gets it.
var viewer = map[string]string{
	"/docs/swagger-ui-bundle.js": "e6a898692f2d768e807c3ba4626068a69a2c5dd960dd6c76f3e4d3a3de180af2",
	"/docs/swagger-ui.css":       "5ed08757e53da3e026d6cbecc61fe5d43585c9560b302d534ad56692519a273d",
}

func TestServeTheDocs(t *testing.T) {
	t.Parallel()
	s := start(t, modelstest.New(t, models.SQLite), says())
	page := s.do(call{method: "GET", path: "/docs"})
	if got := page.header.Get("Content-Type"); page.status != 200 || got != "text/html; charset=utf-8" {
		t.Fatalf("the page: %d %s", page.status, got)
	}
	// Content Security Policy Level 3: nothing within the page runs, and nothing
	// comes from elsewhere.
	const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
		"form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
	if got := page.header.Get("Content-Security-Policy"); got != policy {
		t.Errorf("the policy is %q, want %q", got, policy)
	}
	if regexp.MustCompile(`<style|<script>|<script [^>]*></script>.|\son\w+=|\sstyle=|//`).MatchString(page.body) {
		t.Errorf("the page has what its policy forbids: %s", page.body)
	}
	var asked []string
	for _, link := range regexp.MustCompile(`(?:src|href)="([^":]+)"`).FindAllStringSubmatch(page.body, -1) {
		asked = append(asked, "/"+link[1])
	}
	want := []string{"/docs/swagger-ui.css", "/docs/docs.css", "/api/openapi.yaml", "/docs/swagger-ui-bundle.js", "/docs/docs.js"}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("what the page asks for (-want +got):\n%s", diff)
	}
	for _, path := range append(asked, "/docs/swagger-ui.LICENSE.txt", "/docs/swagger-ui.NOTICE.txt", "/docs/swagger-ui-bundle.js.LICENSE.txt") {
		for _, coding := range []string{"identity", "gzip"} {
			got := s.do(call{method: "GET", path: path, header: http.Header{"Accept-Encoding": {coding}}})
			body := uncompressed(t, got)
			if got.status != 200 || body == "" || got.header.Get("Content-Length") != strconv.Itoa(len(got.body)) {
				t.Errorf("%s as %s: %d with %d bytes", path, coding, got.status, len(body))
			}
			sum := sha256.Sum256([]byte(body))
			if want := viewer[path]; want != "" && hex.EncodeToString(sum[:]) != want {
				t.Errorf("%s has the checksum %x, want %s", path, sum, want)
			}
		}
	}
	none := problem(404, "not_found", "There is nothing at this path.", "")
	for _, path := range []string{"/docs/", "/docs/docs.html", "/docs/openapi.yaml", "/docs/fetch.sh", "/docs/..%2fopenapi.go", "/docs/swagger-ui.css.gz"} {
		s.check(t, call{method: "GET", path: path}, none)
	}
}
