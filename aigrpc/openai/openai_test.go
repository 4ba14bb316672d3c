package openai_test

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
	"parley/aigrpc/openai"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		config openai.Config
		want   error
	}{
		"no model":                    {openai.Config{}, openai.ErrModel},
		"a URL without a scheme":      {openai.Config{Model: "m", BaseURL: "localhost:11434/v1"}, openai.ErrURL},
		"a URL of another scheme":     {openai.Config{Model: "m", BaseURL: "ftp://localhost/v1"}, openai.ErrURL},
		"a URL without a host":        {openai.Config{Model: "m", BaseURL: "http:///v1"}, openai.ErrURL},
		"a URL that is none":          {openai.Config{Model: "m", BaseURL: "http://s3cret\x7f"}, openai.ErrURL},
		"a key with a line break":     {openai.Config{Model: "m", APIKey: "s3cret\n"}, openai.ErrKey},
		"a key that is not ASCII":     {openai.Config{Model: "m", APIKey: "s3cret€"}, openai.ErrKey},
		"a kind that is not known":    {openai.Config{Model: "m", Kind: "tgi"}, openai.ErrKind},
		"nothing that is as it ought": {openai.Config{Model: "m", APIKey: "k", BaseURL: "https://ai.example/v1", Kind: openai.VLLM}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ai, err := openai.New(tt.config)
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("a secret is in the error: %v", err)
			}
			if (ai == nil) != (tt.want != nil) {
				t.Errorf("got %v beside %v", ai, err)
			}
		})
	}
}

// The exchanges are in testdata: the request as it has to be sent, and the
// stream as that server answers it.
func TestExchanges(t *testing.T) {
	t.Parallel()
	temperature, cold := 0.7, 0.0
	said := []*amandaai.ChatChunk{text("You"), text(" are"), text(" Zoë.")}
	for name, tt := range map[string]struct {
		config       openai.Config
		continueFrom string
		want         []*amandaai.ChatChunk
	}{
		"openai": {
			config: openai.Config{APIKey: "s3cret", Kind: openai.OpenAI, Model: "gpt-4.1", Temperature: &temperature, MaxTokens: 300},
			want:   append(said[:3:3], done("stop", &amandaai.Usage{InputTokens: 31, OutputTokens: 5})),
		},
		"ollama": {
			config: openai.Config{Kind: openai.Ollama, Model: "qwen3:8b", MaxTokens: 300},
			want:   append([]*amandaai.ChatChunk{{}}, append(said[:3:3], done("stop", &amandaai.Usage{InputTokens: 40, OutputTokens: 22}))...),
		},
		"llamacpp": {
			config: openai.Config{Kind: openai.LlamaCPP, Model: "default", MaxTokens: 300},
			want:   []*amandaai.ChatChunk{said[0], said[1], text(" Zoë,"), done("length", &amandaai.Usage{InputTokens: 35, OutputTokens: 300})},
		},
		"vllm": {
			config: openai.Config{APIKey: "s3cret", Kind: openai.VLLM, Model: "Qwen/Qwen3-8B", Temperature: &cold, MaxTokens: 300},
			want:   append([]*amandaai.ChatChunk{{}}, append(said[:3:3], done("stop", &amandaai.Usage{InputTokens: 36, OutputTokens: 5}))...),
		},
		"gemini": {
			config: openai.Config{APIKey: "s3cret", Model: "gemini-2.5-flash"},
			want:   []*amandaai.ChatChunk{said[0], text(" are Zoë."), done("stop", &amandaai.Usage{InputTokens: 28, OutputTokens: 5})},
		},
		"ollama-continued": {
			config: openai.Config{Kind: openai.Ollama, Model: "qwen3:8b"}, continueFrom: "You are",
			want: []*amandaai.ChatChunk{continued(text(" Zoë")), text(", I think."), done("stop", nil)},
		},
		"llamacpp-continued": {
			config: openai.Config{Kind: openai.LlamaCPP, Model: "default"}, continueFrom: "You are",
			want: []*amandaai.ChatChunk{continued(text(" Zoë, I think.")), done("stop", nil)},
		},
		"vllm-continued": {
			config: openai.Config{Kind: openai.VLLM, Model: "Qwen/Qwen3-8B"}, continueFrom: "You are",
			want: []*amandaai.ChatChunk{continued(text(" Zoë, I think.")), done("stop", nil)},
		},
		"openai-continued": {
			config: openai.Config{Kind: openai.OpenAI, Model: "gpt-4.1"}, continueFrom: "You are",
			want: []*amandaai.ChatChunk{text("Zoë."), done("stop", nil)},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, says(string(golden(t, name+".sse"))))
			tt.config.BaseURL = server.URL + "/v1/"
			if name != "gemini" {
				tt.config.SystemPrompt = "Be brief."
			}
			got, err := ask(t.Context(), t, tt.config, &amandaai.ChatMessage{
				UserId: 3, ChatId: 5, MessageId: 8,
				History:      []*amandaai.Turn{user("Hello, I am Zoë."), assistant("Hello, Zoë.")},
				Message:      "Who am I?",
				ContinueFrom: tt.continueFrom,
				Model:        "another",
			})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(got, tt.want, protocmp.Transform()); diff != "" {
				t.Errorf("the answer: got -, want +\n%s", diff)
			}
			request := asked{Method: "POST", Path: "/v1/chat/completions", Body: goldenJSON(t, name+".request.json")}
			if tt.config.APIKey != "" {
				request.Authorization = "Bearer s3cret"
			}
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
			server := serve(t, says(string(golden(t, "openai.sse"))))
			_, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL, Model: "own", AnyModel: tt.any}, &amandaai.ChatMessage{Message: "Hello.", Model: tt.named})
			if err != nil {
				t.Fatal(err)
			}
			body, _ := server.requests()[0].Body.(map[string]any)
			if got := body["model"]; got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// What the SDK would read from the environment would go to another server, or
// take another's key along.
func TestTheEnvironmentIsNotRead(t *testing.T) {
	for name, value := range map[string]string{
		"OPENAI_API_KEY": "s3cret", "OPENAI_BASE_URL": "http://127.0.0.1:1", "OPENAI_ORG_ID": "s3cret",
		"OPENAI_PROJECT_ID": "s3cret", "OPENAI_CUSTOM_HEADERS": "Authorization: s3cret",
	} {
		t.Setenv(name, value)
	}
	header := make(chan http.Header, 1)
	server := serve(t, func(_ int, w http.ResponseWriter, r *http.Request) {
		header <- r.Header
		says(string(golden(t, "openai.sse")))(0, w, r)
	})
	if _, err := ask(t.Context(), t, openai.Config{BaseURL: server.URL}, &amandaai.ChatMessage{Message: "Hello."}); err != nil {
		t.Fatal(err)
	}
	for name, values := range <-header {
		if strings.Contains(strings.Join(values, " "), "s3cret") {
			t.Errorf("%s is sent", name)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	const list = `{"object":"list","data":[{"id":"qwen3:8b","object":"model","created":1763750412,"owned_by":"library"}]}`
	for name, tt := range map[string]struct {
		status int
		body   string
		want   told
	}{
		"a server that lists its models":          {200, list, told{}},
		"a server that lists them in another way": {200, `[]`, told{}},
		"a server that lists none":                {404, "404 page not found", told{}},
		"a server with too many requests":         {429, "", told{}},
		"a server that loads its model":           {503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, told{codes.Unavailable, "SERVER_DOWN", 0}},
		"a server that refuses the key":           {401, `{"error":{"code":"invalid_api_key"}}`, told{codes.FailedPrecondition, "BAD_KEY", 0}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(_ int, w http.ResponseWriter, _ *http.Request) { refuses(w, tt.status, tt.body) })
			err := newProvider(t, openai.Config{BaseURL: server.URL + "/v1", APIKey: "s3cret"}).Health(t.Context())
			if got := toldBy(err); got != tt.want {
				t.Errorf("got %+v, want %+v: %v", got, tt.want, err)
			}
			want := []asked{{Method: "GET", Path: "/v1/models", Authorization: "Bearer s3cret"}}
			if diff := cmp.Diff(server.requests(), want); diff != "" {
				t.Errorf("the request: got -, want +\n%s", diff)
			}
		})
	}
	t.Run("a server that is down", func(t *testing.T) {
		t.Parallel()
		err := newProvider(t, openai.Config{BaseURL: "http://127.0.0.1:1"}).Health(t.Context())
		if got, want := toldBy(err), (told{codes.Unavailable, "UNREACHABLE", 0}); got != want {
			t.Errorf("got %+v, want %+v: %v", got, want, err)
		}
	})
	t.Run("a caller who leaves", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := newProvider(t, openai.Config{}).Health(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
}
