package gemini_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/gemini"
)

// event is an event of a stream with so much text, which is JSON.
func event(text string) string {
	return `data: {"candidates":[{"content":{"parts":[{"text":"` + text + `"}],"role":"model"},"index":0}],"modelVersion":"m"}` + "\n\n"
}

const stops = `data: {"candidates":[{"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":2,"totalTokenCount":9}}` + "\n\n"

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		body   string
		want   told
	}{
		"too many requests": {
			429, `{"error":{"code":429,"message":"s3cret","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"37.5s"}]}}`,
			told{codes.ResourceExhausted, "BUSY", 37500 * time.Millisecond},
		},
		"a day's quota that is used up": {
			429, `{"error":{"code":429,"message":"s3cret","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"GenerateRequestsPerDayPerProjectPerModel-FreeTier"}]}]}}`,
			told{codes.ResourceExhausted, "OVER_QUOTA", 0},
		},
		"a wrong key": {
			400, `{"error":{"code":400,"message":"API key not valid: s3cret","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID","domain":"googleapis.com"}]}}`,
			told{codes.FailedPrecondition, "BAD_KEY", 0},
		},
		"a key without the right":    {403, `{"error":{"code":403,"message":"s3cret","status":"PERMISSION_DENIED"}}`, told{codes.FailedPrecondition, "BAD_KEY", 0}},
		"a model that is not there":  {404, `{"error":{"code":404,"message":"models/s3cret is not found","status":"NOT_FOUND"}}`, told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"a request that is wrong":    {400, `{"error":{"code":400,"message":"s3cret","status":"INVALID_ARGUMENT"}}`, told{codes.InvalidArgument, "BAD_REQUEST", 0}},
		"a model that is overloaded": {503, `{"error":{"code":503,"message":"s3cret","status":"UNAVAILABLE"}}`, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"a deadline":                 {504, `{"error":{"code":504,"message":"s3cret","status":"DEADLINE_EXCEEDED"}}`, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"a proxy's page":             {502, "<html>s3cret</html>", told{codes.Unavailable, "SERVER_DOWN", 0}},
		"an empty stream":            {200, "", told{codes.Aborted, "BROKE_OFF", 0}},
		"a page instead of a stream": {200, "<html>s3cret</html>", told{codes.Aborted, "MALFORMED", 0}},
		"a redirect, with the key":   {307, "", told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"a connection that breaks":   {0, "", told{codes.Unavailable, "UNREACHABLE", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
				if tt.status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.Header().Set("Location", "http://127.0.0.1:1/")
				refuses(w, tt.status, tt.body)
			})
			chunks, err := ask(t.Context(), t, gemini.Config{BaseURL: server.URL, SystemPrompt: "s3cret"}, &amandaai.ChatMessage{Message: "s3cret"})
			if got := toldBy(err); got != tt.want || len(chunks) > 0 {
				t.Errorf("got %+v after %v, want %+v: %v", got, chunks, tt.want, err)
			}
			if strings.Contains(fmt.Sprint(err, status.Convert(err).Details()), "s3cret") {
				t.Errorf("a secret is in the error: %v, %v", err, status.Convert(err).Details())
			}
			if got := len(server.requests()); got != 1 {
				t.Errorf("got %d requests, want 1: who asks again is the gRPC client", got)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	said := []*amandaai.ChatChunk{text("Yes"), text(", we can.")}
	whole := event("Yes") + event(", we can.")
	usage := &amandaai.Usage{InputTokens: 7, OutputTokens: 2}
	ending := func(reason string) string {
		return strings.Replace(stops, "STOP", reason, 1)
	}
	ends := func(reason string) []*amandaai.ChatChunk { return append(said[:2:2], done(reason, usage)) }
	for name, tt := range map[string]struct {
		answer func(int, http.ResponseWriter, *http.Request)
		want   []*amandaai.ChatChunk
		fault  told
	}{
		"that stop":                               {says(whole + stops), ends("stop"), told{}},
		"with CR LF":                              {says(strings.ReplaceAll(whole+stops, "\n", "\r\n")), ends("stop"), told{}},
		"at the bound of tokens":                  {says(whole + ending("MAX_TOKENS")), ends("length"), told{}},
		"that safety stops":                       {says(whole + ending("SAFETY")), ends("safety"), told{}},
		"that recite":                             {says(whole + ending("RECITATION")), ends("recitation"), told{}},
		"on a list of words":                      {says(whole + ending("BLOCKLIST")), ends("blocklist"), told{}},
		"with a reason that is not known yet":     {says(whole + ending("TIRED")), ends("tired"), told{}},
		"that break after the end was told":       {broken(whole + stops), ends("stop"), told{}},
		"that are blocked for no reason":          {says(`data: {"promptFeedback":{"blockReason":"OTHER"}}` + "\n\n"), []*amandaai.ChatChunk{done("content_filter", nil)}, told{}},
		"that are blocked for safety":             {says(`data: {"promptFeedback":{"blockReason":"SAFETY"}}` + "\n\n"), []*amandaai.ChatChunk{done("safety", nil)}, told{}},
		"with empty parts":                        {says(event("") + event("Yes") + event("") + event(", we can.") + stops), ends("stop"), told{}},
		"with NUL":                                {says(event(`a\u0000b`) + stops), []*amandaai.ChatChunk{text("a\ufffdb"), done("stop", usage)}, told{}},
		"with nothing where something is":         {says(event("Yes") + `data: {"candidates":[null]}` + "\n\n" + stops), said[:1], told{codes.Aborted, "MALFORMED", 0}},
		"with a part that is null":                {says(event("Yes") + `data: {"candidates":[{"content":{"parts":[null]}}]}` + "\n\n" + stops), []*amandaai.ChatChunk{said[0], done("stop", usage)}, told{}},
		"that break off":                          {broken(whole), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"that break off and could be taken up":    {broken(event("Yes") + `data: {"candidates":[{"content":{"parts":[{"text":", we can."}],"role":"model"},"index":0,"continuationToken":"AAAA"}]}` + "\n\n"), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"that end without saying how":             {says(whole), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"that end in the midst of an event":       {says(whole + stops[:40]), said, told{codes.Aborted, "MALFORMED", 0}},
		"with an event that is no JSON":           {says(whole + "data: {\"candidates\":[{\n\n" + stops), said, told{codes.Aborted, "MALFORMED", 0}},
		"with an event that is no object":         {says(whole + "data: 17\n\n" + stops), said, told{codes.Aborted, "MALFORMED", 0}},
		"with an event of another kind":           {says(whole + `data: {"candidates":17}` + "\n\n" + stops), said, told{codes.Aborted, "MALFORMED", 0}},
		"with an event of too many bytes":         {says(event("Yes") + event(strings.Repeat("x", 5<<20)) + stops), said[:1], told{codes.Aborted, "MALFORMED", 0}},
		"with more in all than an event may have": {says(strings.Repeat(strings.Replace(event(""), `"m"`, `"`+strings.Repeat("m", 1<<20)+`"`, 1), 5) + whole + stops), ends("stop"), told{}},
		"with an error in their midst":            {says(event("Yes") + `data: {"error":{"code":503,"message":"s3cret","status":"UNAVAILABLE"}}` + "\n\n"), said[:1], told{codes.Aborted, "SERVER_DOWN", 0}},
		"with an error first":                     {says(`data: {"error":{"code":503,"message":"s3cret","status":"UNAVAILABLE"}}` + "\n\n"), nil, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"with an error without a frame":           {says(event("Yes") + `{"error":{"code":429,"message":"s3cret","status":"RESOURCE_EXHAUSTED"}}`), said[:1], told{codes.ResourceExhausted, "BUSY", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, tt.answer)
			got, err := ask(t.Context(), t, gemini.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Can we?"})
			if diff := cmp.Diff(got, tt.want, protocmp.Transform()); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
			if got := toldBy(err); got != tt.fault || strings.Contains(fmt.Sprint(err), "s3cret") {
				t.Errorf("got %+v, want %+v: %v", got, tt.fault, err)
			}
			if got := len(server.requests()); got != 1 {
				t.Errorf("got %d requests, want 1: who asks again is the gRPC client", got)
			}
		})
	}
}

func TestAChatThatIsTooLongIsAskedAboutOnceMore(t *testing.T) {
	t.Parallel()
	const tooLong = `{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}`
	history := []*amandaai.Turn{user("One."), assistant("Two."), user("Ten."), assistant("Six.")}
	for name, tt := range map[string]struct {
		history  []*amandaai.Turn
		refused  int   // so many times
		contents []int // how many there are in each request
		want     told
	}{
		"with the later half":               {history, 1, []int{5, 3}, told{}},
		"and no third time":                 {history, 9, []int{5, 3}, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0}},
		"not, where there is nothing to go": {nil, 9, []int{1}, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(number int, w http.ResponseWriter, r *http.Request) {
				if number < tt.refused {
					refuses(w, 400, tooLong)
					return
				}
				says(event("Well.")+stops)(number, w, r)
			})
			_, err := ask(t.Context(), t, gemini.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Five?", History: tt.history})
			if got := toldBy(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
			var got []int
			for _, a := range server.requests() {
				body, _ := a.Body.(map[string]any)
				contents, _ := body["contents"].([]any)
				got = append(got, len(contents))
			}
			if diff := cmp.Diff(got, tt.contents); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

// The API's work ends, and is not paid for, as soon as nobody waits for it.
func TestTheServerLearnsThatNobodyListens(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before string // what it says before it hangs
		leave  bool   // by the caller, at the first chunk or before it
		want   told
	}{
		"when the caller leaves before a word": {"", true, told{codes.Canceled, "", 0}},
		"when the caller leaves":               {event("Well"), true, told{codes.Canceled, "", 0}},
		"when the answer is too long":          {event(strings.Repeat("x", 200)), false, told{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			asked, gone := make(chan bool, 1), make(chan bool, 1)
			server := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				_, _ = io.WriteString(w, tt.before)
				_ = http.NewResponseController(w).Flush()
				asked <- true
				<-r.Context().Done()
				gone <- true
			})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			if tt.leave && tt.before == "" {
				go func() {
					<-asked
					cancel()
				}()
			}
			ai := newProvider(t, gemini.Config{BaseURL: server.URL, MaxReplyBytes: 100})
			var got []*amandaai.ChatChunk
			err := listen(ctx, t, ai, &amandaai.ChatMessage{Message: "Well?"}, func(c *amandaai.ChatChunk) {
				got = append(got, c)
				if tt.leave {
					cancel()
				}
			})
			if got := toldBy(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
			within(t, gone)
			if tt.leave {
				return
			}
			if diff := cmp.Diff(got, []*amandaai.ChatChunk{text(strings.Repeat("x", 100)), done("length", nil)}, protocmp.Transform()); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

// The SDK writes to the log of the standard library what it could not read.
func TestNothingIsLogged(t *testing.T) {
	var logged bytes.Buffer
	defer log.SetOutput(log.Writer())
	log.SetOutput(&logged)
	for _, answer := range []func(int, http.ResponseWriter, *http.Request){broken(event("Yes")), says(event(strings.Repeat("x", 5<<20))), says("data: {s3cret\n\n")} {
		server := serve(t, answer)
		if _, err := ask(t.Context(), t, gemini.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Can we?"}); err == nil {
			t.Error("got no error")
		}
	}
	if logged.Len() > 0 {
		t.Errorf("got %s", logged.String())
	}
}
