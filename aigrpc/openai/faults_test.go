package openai_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/openai"
)

// event is an event of a stream with so much text, which is JSON.
func event(text string) string {
	return `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"` + text + `"},"finish_reason":null}]}` + "\n\n"
}

// The last events of a stream.
const (
	stops = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n\n"
	costs = `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}` + "\n\n"
	ends  = "data: [DONE]\n\n"
)

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer func(http.ResponseWriter)
		want   told
	}{
		"too many requests": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "20")
			refuses(w, 429, `{"error":{"message":"s3cret","type":"requests","param":null,"code":"rate_limit_exceeded"}}`)
		}, told{codes.ResourceExhausted, "BUSY", 20 * time.Second}},
		"a quota that is used up": {func(w http.ResponseWriter) {
			refuses(w, 429, `{"error":{"message":"s3cret","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}`)
		}, told{codes.ResourceExhausted, "OVER_QUOTA", 0}},
		"a wrong key": {func(w http.ResponseWriter) {
			refuses(w, 401, `{"error":{"message":"Incorrect API key provided: s3cret.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`)
		}, told{codes.FailedPrecondition, "BAD_KEY", 0}},
		"a model that is not there, told as Ollama does": {func(w http.ResponseWriter) {
			refuses(w, 404, `{"error":{"message":"model \"s3cret\" not found, try pulling it first","type":"not_found_error","param":null,"code":null}}`)
		}, told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"a request that is wrong": {func(w http.ResponseWriter) {
			refuses(w, 400, `{"error":{"message":"s3cret","type":"invalid_request_error","param":"temperature","code":"unsupported_value"}}`)
		}, told{codes.InvalidArgument, "BAD_REQUEST", 0}},
		"a fault, told as a text": {func(w http.ResponseWriter) {
			refuses(w, 500, `{"error":"s3cret"}`)
		}, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"a model that loads, as llama.cpp tells it": {func(w http.ResponseWriter) {
			refuses(w, 503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`)
		}, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"a proxy's page": {func(w http.ResponseWriter) {
			refuses(w, 502, "<html><h1>502 s3cret</h1></html>")
		}, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"an error without an end": {func(w http.ResponseWriter) {
			w.WriteHeader(500)
			for err := error(nil); err == nil; {
				_, err = io.WriteString(w, "s3cret ")
			}
		}, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"a redirect to another server": {func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.1:1/s3cret")
			w.WriteHeader(307)
		}, told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"a connection that breaks at once": {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, told{codes.Unavailable, "UNREACHABLE", 0}},
		"a page instead of a stream":       {func(w http.ResponseWriter) { _, _ = io.WriteString(w, "<html>s3cret</html>") }, told{codes.Aborted, "BROKE_OFF", 0}},
		"an answer that is no stream": {func(w http.ResponseWriter) {
			refuses(w, 200, `{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"s3cret"},"finish_reason":"stop"}]}`)
		}, told{codes.Aborted, "BROKE_OFF", 0}},
		"a stream without an event": {func(http.ResponseWriter) {}, told{codes.Aborted, "BROKE_OFF", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { tt.answer(w) })
			chunks, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL, APIKey: "s3cret", SystemPrompt: "s3cret"}, &amandaai.ChatMessage{Message: "s3cret"})
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
	t.Run("a server that is down", func(t *testing.T) {
		t.Parallel()
		_, err := ask(t.Context(), t, openai.Config{BaseURL: "http://127.0.0.1:1", APIKey: "s3cret"}, &amandaai.ChatMessage{Message: "s3cret"})
		if got, want := toldBy(err), (told{codes.Unavailable, "UNREACHABLE", 0}); got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	})
}

func TestStreams(t *testing.T) {
	t.Parallel()
	said := []*amandaai.ChatChunk{text("Yes"), text(", we can.")}
	whole := event("Yes") + event(", we can.")
	usage := &amandaai.Usage{InputTokens: 7, OutputTokens: 2}
	stopped := func(u *amandaai.Usage) []*amandaai.ChatChunk { return append(said[:2:2], done("stop", u)) }
	for name, tt := range map[string]struct {
		answer func(int, http.ResponseWriter, *http.Request)
		want   []*amandaai.ChatChunk
		fault  told
	}{
		"with usage last":                   {says(whole + stops + costs + ends), stopped(usage), told{}},
		"without usage":                     {says(whole + stops + ends), stopped(nil), told{}},
		"without [DONE]":                    {says(whole + stops + costs), stopped(usage), told{}},
		"that break after the end was told": {broken(whole + stops), stopped(nil), told{}},
		"with comments between the events":  {says(": ping\n\n" + event("Yes") + ": ping\n\n: ping\n\n" + event(", we can.") + stops + ends), stopped(nil), told{}},
		"with CR LF":                        {says(strings.ReplaceAll(whole+stops+costs+ends, "\n", "\r\n")), stopped(usage), told{}},
		"with named events":                 {says("event: chunk\n" + whole + stops + ends), stopped(nil), told{}},
		"with empty deltas":                 {says(event("") + event("Yes") + event("") + event(", we can.") + event("") + stops + ends), stopped(nil), told{}},
		"with the end beside the last text": {says(event("Yes") + strings.Replace(event(", we can."), "null", `"stop"`, 1) + ends), stopped(nil), told{}},
		"with an error that is none":        {says(strings.ReplaceAll(whole+stops+costs, `"choices"`, `"error": null,"choices"`) + ends), stopped(usage), told{}},
		"with the word error in the text":   {says(event(`The \"error\": null`) + stops + ends), []*amandaai.ChatChunk{text(`The "error": null`), done("stop", nil)}, told{}},
		"with a reason of their own":        {says(whole + strings.Replace(stops, "stop", "tool_calls", 1) + ends), append(said[:2:2], done("tool_calls", nil)), told{}},
		"that the content filter ends":      {says(event("Yes") + strings.Replace(stops, "stop", "content_filter", 1) + ends), []*amandaai.ChatChunk{said[0], done("content_filter", nil)}, told{}},
		"that the content filter forbids": {func(_ int, w http.ResponseWriter, _ *http.Request) {
			refuses(w, 400, `{"error":{"code":"content_filter"}}`)
		}, []*amandaai.ChatChunk{done("content_filter", nil)}, told{}},
		"that the content filter stops":           {says(event("Yes") + `data: {"error":{"code":"content_filter"}}` + "\n\n"), []*amandaai.ChatChunk{said[0], done("content_filter", nil)}, told{}},
		"with a refusal instead of text":          {says(strings.Replace(event("I cannot."), "content", "refusal", 1) + stops + ends), []*amandaai.ChatChunk{text("I cannot."), done("stop", nil)}, told{}},
		"with half a rune in each of two":         {says(event("5 \xe2\x82") + event("\xac") + stops + ends), []*amandaai.ChatChunk{text("5 "), text("€"), done("stop", nil)}, told{}},
		"with NUL and a lone surrogate":           {says(event(`a\u0000b\ud83d`) + stops + ends), []*amandaai.ChatChunk{text("a\ufffdb\ufffd"), done("stop", nil)}, told{}},
		"with a choice that nobody asked for":     {says(event("Yes") + strings.Replace(event(", we can."), `"choices":[`, `"choices":[null,`, 1) + stops + ends), stopped(nil), told{}},
		"that break off":                          {broken(whole), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"that break off before a word":            {broken(": ping\n\n"), nil, told{codes.Aborted, "BROKE_OFF", 0}},
		"that end without saying how":             {says(whole), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"that are done without saying how":        {says(whole + ends), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"that end in the midst of an event":       {says(whole + stops[:40]), said, told{codes.Aborted, "BROKE_OFF", 0}},
		"with an event that is no JSON":           {says(whole + "data: {\"choices\":[{\n\n" + stops + ends), said, told{codes.Aborted, "MALFORMED", 0}},
		"with an event that is no object":         {says(whole + "data: 17\n\n" + stops + ends), said, told{codes.Aborted, "MALFORMED", 0}},
		"with an event of too many bytes":         {says(event("Yes") + event(strings.Repeat("x", 5<<20)) + stops + ends), said[:1], told{codes.Aborted, "MALFORMED", 0}},
		"with more in all than an event may have": {says(strings.Repeat(strings.Replace(event(""), `"m"`, `"`+strings.Repeat("m", 1<<20)+`"`, 1), 5) + whole + stops), stopped(nil), told{}},
		"with an error in their midst":            {says(event("Yes") + `data: {"error":{"message":"s3cret","type":"server_error","code":null}}` + "\n\n"), said[:1], told{codes.Aborted, "BROKE_OFF", 0}},
		"with vLLM's error in their midst":        {says(event("Yes") + `data: {"error":{"message":"s3cret","type":"InternalServerError","param":null,"code":500}}` + "\n\n" + ends), said[:1], told{codes.Aborted, "SERVER_DOWN", 0}},
		"with llama.cpp's error first":            {says(`data: {"error":{"code":500,"message":"s3cret","type":"server_error"}}` + "\n\n"), nil, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"with an older llama.cpp's error":         {says(event("Yes") + `error: {"code":500,"message":"s3cret","type":"server_error"}` + "\n\n" + ends), said[:1], told{codes.Aborted, "BROKE_OFF", 0}},
		"with too many requests in the middle":    {says(event("Yes") + `data: {"error":{"message":"s3cret","type":"tokens","code":"rate_limit_exceeded"}}` + "\n\n"), said[:1], told{codes.ResourceExhausted, "BUSY", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, tt.answer)
			got, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Can we?"})
			if diff := cmp.Diff(got, tt.want, protocmp.Transform()); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
			if got := toldBy(err); got != tt.fault || strings.Contains(fmt.Sprint(err), "s3cret") {
				t.Errorf("got %+v, want %+v: %v", got, tt.fault, err)
			}
		})
	}
}

func TestAChatThatIsTooLongIsAskedAboutOnceMore(t *testing.T) {
	t.Parallel()
	const tooLong = `{"error":{"message":"This model's maximum context length is 4096 tokens.","type":"BadRequestError","param":null,"code":400}}`
	history := []*amandaai.Turn{user("One."), assistant("Two."), user("Ten."), assistant("Six.")}
	messages := func(a asked) []string {
		body, _ := a.Body.(map[string]any)
		list, _ := body["messages"].([]any)
		var texts []string
		for _, m := range list {
			message, _ := m.(map[string]any)
			texts = append(texts, fmt.Sprint(message["content"]))
		}
		return texts
	}
	whole, half, none := []string{"One.", "Two.", "Ten.", "Six.", "Five?"}, []string{"Ten.", "Six.", "Five?"}, []string{"Five?"}
	for name, tt := range map[string]struct {
		history []*amandaai.Turn
		told    string // how, where not by a status
		refused int    // so many times
		want    [][]string
		fault   told
	}{
		"with the later half":               {history, "", 1, [][]string{whole, half}, told{}},
		"and no third time":                 {history, "", 9, [][]string{whole, half}, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0}},
		"where it says so in an event":      {history, "data: " + tooLong + "\n\n", 1, [][]string{whole, half}, told{}},
		"not, where there is nothing to go": {nil, "", 9, [][]string{none}, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0}},
		"not, where it said something":      {history, event("Yes") + "data: " + tooLong + "\n\n", 9, [][]string{whole}, told{codes.InvalidArgument, "CONTEXT_TOO_LONG", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(number int, w http.ResponseWriter, r *http.Request) {
				switch {
				case number >= tt.refused:
					says(event("Well.")+stops)(number, w, r)
				case tt.told != "":
					says(tt.told)(number, w, r)
				default:
					refuses(w, 400, tooLong)
				}
			})
			_, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Five?", History: tt.history})
			if got := toldBy(err); got != tt.fault {
				t.Errorf("got %+v, want %+v: %v", got, tt.fault, err)
			}
			var got [][]string
			for _, a := range server.requests() {
				got = append(got, messages(a))
			}
			if diff := cmp.Diff(got, tt.want); diff != "" {
				t.Errorf("got -, want +\n%s", diff)
			}
		})
	}
}

func TestAServerThatCannotGoOnAnswersAnew(t *testing.T) {
	t.Parallel()
	server := serve(t, func(number int, w http.ResponseWriter, r *http.Request) {
		if number == 0 {
			refuses(w, 400, `{"error":{"code":400,"message":"Assistant response prefill is incompatible with enable_thinking.","type":"invalid_request_error"}}`)
			return
		}
		says(event("Anew.")+stops)(number, w, r)
	})
	got, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL, Kind: openai.LlamaCPP}, &amandaai.ChatMessage{Message: "Go on.", ContinueFrom: "And so"})
	if err != nil {
		t.Fatal(err)
	}
	want := []*amandaai.ChatChunk{text("Anew."), done("stop", nil)}
	if diff := cmp.Diff(got, want, protocmp.Transform()); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
	if got := len(server.requests()); got != 2 {
		t.Errorf("got %d requests, want 2", got)
	}
}

func TestAServerThatRepeatsWhatItGoesOnFromIsNotHeardTwice(t *testing.T) {
	t.Parallel()
	const begun = "It is raining, and has been"
	server := serve(t, says(event("It is raining")+event(", and has been for")+event(" days.")+stops))
	got, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL, Kind: openai.LlamaCPP}, &amandaai.ChatMessage{Message: "And?", ContinueFrom: begun})
	if err != nil {
		t.Fatal(err)
	}
	want := []*amandaai.ChatChunk{continued(text(" for")), text(" days."), done("stop", nil)}
	if diff := cmp.Diff(got, want, protocmp.Transform()); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
}

func TestASlowFirstTokenIsWaitedFor(t *testing.T) {
	t.Parallel()
	beating, resume := make(chan bool), make(chan bool)
	server := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 { // as a proxy does while the model thinks
			_, _ = io.WriteString(w, ": processing\n\n")
			_ = http.NewResponseController(w).Flush()
			beating <- true
		}
		<-resume
		_, _ = io.WriteString(w, event("At last.")+stops)
	})
	go func() {
		for range 3 {
			<-beating
		}
		close(resume)
	}()
	got, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Well?"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, []*amandaai.ChatChunk{text("At last."), done("stop", nil)}, protocmp.Transform()); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
}

// A server that has said how its answer ended, and then hangs, has answered.
func TestAServerThatHangsAtTheEnd(t *testing.T) {
	t.Parallel()
	server := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, event("That is all.")+stops)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got, err := ask(ctx, t, openai.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Well?"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, []*amandaai.ChatChunk{text("That is all."), done("stop", nil)}, protocmp.Transform()); diff != "" {
		t.Errorf("got -, want +\n%s", diff)
	}
}

// The server's work ends, and is not paid for, as soon as nobody waits for it.
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
			ai := newProvider(t, openai.Config{BaseURL: server.URL, MaxReplyBytes: 100})
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
