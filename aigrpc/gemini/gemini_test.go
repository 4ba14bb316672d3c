package gemini_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/gemini"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config gemini.Config
		want   error
	}{
		"no model":                {gemini.Config{APIKey: "s3cret"}, gemini.ErrModel},
		"no key":                  {gemini.Config{Model: "m"}, gemini.ErrKey},
		"a key with a line break": {gemini.Config{Model: "m", APIKey: "s3cret\n"}, gemini.ErrKey},
		"a key that is not ASCII": {gemini.Config{Model: "m", APIKey: "s3cret€"}, gemini.ErrKey},
		"a URL without a scheme":  {gemini.Config{Model: "m", APIKey: "s3cret", BaseURL: "localhost:1"}, gemini.ErrURL},
		"a URL without a host":    {gemini.Config{Model: "m", APIKey: "s3cret", BaseURL: "https:///"}, gemini.ErrURL},
		"nothing as it ought":     {gemini.Config{Model: "m", APIKey: "s3cret"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ai, err := gemini.New(tt.config)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the key is in the error: %v", err)
			}
			if (ai == nil) != (tt.want != nil) {
				t.Errorf("got %v beside %v", ai, err)
			}
		})
	}
}

// The exchanges are in testdata: the request as it has to be sent, and the
// stream as the API answers it.
func TestExchanges(t *testing.T) {
	t.Parallel()
	temperature := 0.7
	for name, tt := range map[string]struct {
		config gemini.Config
		want   []*amandaai.ChatChunk
	}{
		"answer": {
			gemini.Config{SystemPrompt: "Be brief.", Temperature: &temperature, MaxTokens: 300},
			[]*amandaai.ChatChunk{text("You"), text(" are"), text(" Zoë."), done("stop", &amandaai.Usage{InputTokens: 28, OutputTokens: 22})},
		},
		"thoughts": {
			gemini.Config{},
			[]*amandaai.ChatChunk{{}, text("You are Zoë."), done("length", &amandaai.Usage{InputTokens: 28, OutputTokens: 300})},
		},
		"stopped": {
			gemini.Config{},
			[]*amandaai.ChatChunk{text("You are"), done("safety", &amandaai.Usage{InputTokens: 28, OutputTokens: 2})},
		},
		"blocked": {
			gemini.Config{},
			[]*amandaai.ChatChunk{done("prohibited_content", &amandaai.Usage{InputTokens: 28})},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, says(string(golden(t, name+".sse"))))
			tt.config.BaseURL = server.URL
			got, err := ask(t.Context(), t, tt.config, &amandaai.ChatMessage{
				UserId: 3, ChatId: 5, MessageId: 8,
				History:      []*amandaai.Turn{user("Hello, I am Zoë."), assistant(""), assistant("Hello, Zoë.")},
				Message:      "Who am I?",
				ContinueFrom: "You are",
				Model:        "another",
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, tt.want, protocmp.Transform()); diff != "" {
				t.Errorf("the answer: got -, want +\n%s", diff)
			}
			request := asked{"POST", "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse", "s3cret", goldenJSON(t, name+".request.json")}
			if diff := cmp.Diff(server.requests(), []asked{request}); diff != "" {
				t.Errorf("the request: got -, want +\n%s", diff)
			}
		})
	}
}

func TestTheModelOfARequest(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		any         bool
		named, want string
	}{
		"is not asked where it may not choose": {false, "other", "own"},
		"is asked where it may choose":         {true, "other", "other"},
		"is our own where it names none":       {true, "", "own"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, says(string(golden(t, "answer.sse"))))
			_, err := ask(t.Context(), t, gemini.Config{BaseURL: server.URL, Model: "own", AnyModel: tt.any}, &amandaai.ChatMessage{Message: "Hello.", Model: tt.named})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := server.requests()[0].URL, "/v1beta/models/"+tt.want+":streamGenerateContent?alt=sse"; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// What the SDK would read from the environment would go to another server, or
// take another's key along.
func TestTheEnvironmentIsNotRead(t *testing.T) {
	for name, value := range map[string]string{
		"GOOGLE_API_KEY": "0ther", "GOOGLE_GEMINI_BASE_URL": "http://127.0.0.1:1", "GOOGLE_GENAI_USE_VERTEXAI": "true",
		"GOOGLE_CLOUD_PROJECT": "0ther", "GOOGLE_CLOUD_LOCATION": "0ther",
	} {
		t.Setenv(name, value)
	}
	header := make(chan http.Header, 1)
	server := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		header <- r.Header
		says(string(golden(t, "answer.sse")))(0, w, r)
	})
	if _, err := ask(t.Context(), t, gemini.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Hello."}); err != nil {
		t.Fatal(err)
	}
	for name, values := range <-header {
		if strings.Contains(strings.Join(values, " "), "0ther") {
			t.Errorf("%s is sent", name)
		}
	}
	if got := server.requests()[0].Key; got != "s3cret" {
		t.Errorf("got key %q, want our own", got)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		status int
		body   string
		want   told
	}{
		"a model that is there":     {200, `{"name":"models/gemini-2.5-flash","displayName":"Gemini 2.5 Flash","inputTokenLimit":1048576}`, told{}},
		"a quota that is used up":   {429, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}`, told{}},
		"a model that is not there": {404, `{"error":{"code":404,"status":"NOT_FOUND"}}`, told{codes.FailedPrecondition, "BAD_SETTINGS", 0}},
		"a wrong key":               {400, `{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}`, told{codes.FailedPrecondition, "BAD_KEY", 0}},
		"a fault":                   {500, `{"error":{"code":500,"status":"INTERNAL"}}`, told{codes.Unavailable, "SERVER_DOWN", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { refuses(w, tt.status, tt.body) })
			err := newProvider(t, gemini.Config{BaseURL: server.URL}).Health(t.Context())
			if got := toldBy(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
			if diff := cmp.Diff(server.requests(), []asked{{"GET", "/v1beta/models/gemini-2.5-flash", "s3cret", nil}}); diff != "" {
				t.Errorf("the request: got -, want +\n%s", diff)
			}
		})
	}
	t.Run("a server that is down", func(t *testing.T) {
		t.Parallel()
		err := newProvider(t, gemini.Config{BaseURL: "http://127.0.0.1:1"}).Health(t.Context())
		if got, want := toldBy(err), (told{codes.Unavailable, "UNREACHABLE", 0}); got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	})
	t.Run("a caller who leaves", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newProvider(t, gemini.Config{BaseURL: "http://127.0.0.1:1"}).Health(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}
