package main_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// modelServer speaks as OpenAI's chat completions do, and repeats what it is
// told last.
func modelServer(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/models" { // how the server is
			fmt.Fprint(w, `{"object":"list","data":[]}`)
			return
		}
		var asked struct {
			Model    string
			Messages []struct{ Role, Content string }
		}
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = json.Unmarshal(body, &asked)
		}
		if err != nil || r.URL.Path != "/v1/chat/completions" || r.Header.Get("Authorization") != "Bearer sk-test" {
			t.Errorf("asked %s by %q: %v", r.URL.Path, r.Header.Get("Authorization"), err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		said := asked.Messages[len(asked.Messages)-1].Content
		for _, text := range []string{asked.Model, " hears: ", said} {
			delta, err := json.Marshal(text)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}`+"\n\n", delta)
		}
		fmt.Fprint(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`+"\n\n")
		fmt.Fprint(w, `data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3,"total_tokens":15}}`+"\n\n")
		fmt.Fprint(w, "data: [DONE]\n\n")
	}))
	t.Cleanup(server.Close)
	return server
}

// One parley asks a model's server itself, or by way of another parley.
func TestARealModelAnswers(t *testing.T) {
	t.Parallel()
	provider := []string{"AI_PROVIDER=openai", "AI_MODEL=small-1", "OPENAI_API_KEY=sk-test", "OPENAI_BASE_URL=" + modelServer(t).URL + "/v1"}
	for name, settings := range map[string]func(t *testing.T) []string{
		"in the same process": func(*testing.T) []string { return provider },
		"behind parley ai": func(t *testing.T) []string {
			ai := startProgram(t, parley(t), append([]string{"AI_SERVICE_PORT=0", "AI_SERVICE_TOKEN=open-sesame", "LOG_FORMAT=json"}, provider...), "ai")
			t.Cleanup(func() {
				ai.signal(t, syscall.SIGTERM)
				if code := ai.exitCode(t); code != 0 {
					t.Errorf("parley ai ended with %d", code)
				}
			})
			return append(backendAt(t, ai.url), "GRPC_AI_BACKEND_TOKEN=open-sesame")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, settings(t)...)
			ann := signUp(t, s)
			r := ann.say(t, s, "good morning")
			r.through()
			if r.text != "small-1 hears: good morning" {
				t.Errorf("the reply is %q", r.text)
			}
			r.check(ann, s, "complete")
			if got := state(t, s); got != "ok" {
				t.Errorf("the backend's state is %q", got)
			}
		})
	}
}

func TestParleyAIPassesNothingOn(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{
		"AI_PROVIDER=grpc":    "AI_PROVIDER: grpc is a service elsewhere, and this one would only pass on to it; use demo, openai or gemini\n",
		"VOICE_PROVIDER=grpc": "VOICE_PROVIDER: grpc is a service elsewhere, and this one would only pass on to it; use openai, local or none\n",
	} {
		got := run(t, []string{setting}, "ai")
		if diff := cmp.Diff(got, ended{1, "", "parley: " + want}); diff != "" {
			t.Errorf("%s: (-got +want):\n%s", setting, diff)
		}
	}
}

// Where programs are missing the service starts, and says what would give it a
// voice.
func TestAVoiceWithoutItsPrograms(t *testing.T) {
	t.Parallel()
	p := startProgram(t, parley(t), []string{"AI_SERVICE_PORT=0", "LOG_FORMAT=json", "VOICE_PROVIDER=local", "PATH=" + t.TempDir()}, "ai")
	p.signal(t, syscall.SIGTERM)
	if code := p.exitCode(t); code != 0 {
		t.Errorf("parley ai ended with %d", code)
	}
	if log := strings.Join(p.log, "\n"); !strings.Contains(log, "nobody hears or speaks here") || !strings.Contains(log, "apt-get install ffmpeg pocketsphinx flite") {
		t.Errorf("got %s", log)
	}
}
