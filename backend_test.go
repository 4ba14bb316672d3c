package main_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"parley/aigrpc/amandaai"
)

type chunks = grpc.ServerStreamingServer[amandaai.ChatChunk]

// A backend is an AI service, somewhere on the network, that answers as its
// function says.
type backend struct {
	amandaai.UnimplementedAIServiceServer
	answer func(*amandaai.ChatMessage, chunks) error
}

func (b backend) StreamChat(m *amandaai.ChatMessage, out chunks) error { return b.answer(m, out) }

// serveBackend starts a backend on address, or on a free one, until the test's
// end, and returns the settings of who asks it.
func serveBackend(t *testing.T, address string, answer func(*amandaai.ChatMessage, chunks) error) (settings []string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	amandaai.RegisterAIServiceServer(server, backend{answer: answer})
	var running sync.WaitGroup
	running.Go(func() { _ = server.Serve(listener) })
	t.Cleanup(func() {
		server.Stop()
		running.Wait()
	})
	return backendAt(t, listener.Addr().String())
}

func backendAt(t *testing.T, address string) (settings []string) {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"AI_PROVIDER=grpc", "GRPC_AI_BACKEND_HOST=" + host, "GRPC_AI_BACKEND_PORT=" + port}
}

// A dictation is a backend that says what the test says, when the test says it,
// and is done when words is closed.
type dictation struct {
	t        *testing.T
	settings []string
	words    chan string
}

func dictate(t *testing.T) *dictation {
	t.Helper()
	d := &dictation{t: t, words: make(chan string)}
	d.settings = serveBackend(t, "127.0.0.1:0", func(_ *amandaai.ChatMessage, out chunks) error {
		for {
			select {
			case word, more := <-d.words:
				if !more {
					return nil
				}
				if err := out.Send(&amandaai.ChatChunk{Text: word}); err != nil {
					return err
				}
			case <-out.Context().Done():
				return out.Context().Err()
			}
		}
	})
	return d
}

// say hands a word to the backend, once it is asked.
func (d *dictation) say(word string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	select {
	case d.words <- word:
	case <-ctx.Done():
		d.t.Fatalf("nobody asked for %q", word)
	}
}

// moody answers whoever has the credential by what it is asked.
func moody(m *amandaai.ChatMessage, out chunks) error {
	if md, _ := metadata.FromIncomingContext(out.Context()); !cmp.Equal(md.Get("authorization"), []string{"Bearer open-sesame"}) {
		return status.Error(codes.Unauthenticated, "no credential")
	}
	switch m.GetMessage() {
	case "break off":
		if err := out.Send(&amandaai.ChatChunk{Text: "The first half, "}); err != nil {
			return err
		}
		return status.Error(codes.Internal, "broken")
	case "hang":
		<-out.Context().Done()
		return out.Context().Err()
	}
	for _, turn := range m.GetHistory() {
		if err := out.Send(&amandaai.ChatChunk{Text: fmt.Sprintf("%s: %s. ", turn.GetRole(), turn.GetContent())}); err != nil {
			return err
		}
	}
	return out.Send(&amandaai.ChatChunk{Text: "All of it.", Done: true, FinishReason: "stop"})
}

// state is what /readyz says of the AI backend; the replica is ready all the
// same.
func state(t *testing.T, s *service) string {
	t.Helper()
	var ready struct {
		Checks map[string]string
	}
	nobody.ask(t, s, "GET", "/readyz", "").want(t, 200).decode(t, &ready)
	return ready.Checks["ai_backend"]
}

// It does not run in parallel: the backend's port is free for a while, and
// another test could get it.
func TestABackendThatIsDownAndComesBack(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	s := start(t, with(database(t, "sqlite"), with(backendAt(t, address), "GRPC_AI_BACKEND_TOKEN=open-sesame")...)...)
	you := signUp(t, s)
	if got, want := state(t, s), "unreachable"; got != want {
		t.Errorf("a backend that is down: got %q in /readyz, want %q", got, want)
	}
	r := you.say(t, s, "Hello")
	r.through()
	if want := "error backend_unavailable"; r.end != want || r.text != "" {
		t.Errorf("got %q after %q, want %q after nothing", r.end, r.text, want)
	}
	r.check(you, s, "failed")

	serveBackend(t, address, moody)
	eventually(t, "the backend is found again", func() bool { return state(t, s) == "ok" })
	again := you.say(t, s, "Hello")
	again.through()
	if again.end != "message_complete" || again.text != "All of it." {
		t.Errorf("got %q and %q", again.text, again.end)
	}
}

// A provider in this process is always there; whether the server behind it is,
// its replies tell.
func TestAServerBehindAProviderThatIsDown(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, with(settings, "AI_PROVIDER=openai", "OPENAI_BASE_URL=http://127.0.0.1:1/v1", "AI_MODEL=m", "METRICS_ADDR=127.0.0.1:0")...)
		you := signUp(t, s)
		if got, want := state(t, s), "ok"; got != want {
			t.Errorf("before anybody asked: got %q in /readyz, want %q", got, want)
		}
		for range 5 {
			you.say(t, s, "Hello").through()
		}
		eventually(t, "the backend is told to be down", func() bool {
			return state(t, s) == "failing" && scrapeOf(t, s.seen)["parley_backend_down"] == 1
		})
	})
}

func TestABackendThatBreaksOff(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		settings = with(settings, serveBackend(t, "127.0.0.1:0", moody)...)
		s := start(t, with(settings, "GRPC_AI_BACKEND_TOKEN=open-sesame")...)
		you := signUp(t, s)
		r := you.say(t, s, "break off")
		r.through()
		if want := "error backend_error"; r.end != want || r.text != "The first half, " {
			t.Errorf("got %q after %q, want %q after the first half", r.end, r.text, want)
		}
		r.check(you, s, "failed")

		next := you.say(t, s, "in another chat")
		next.through()
		next.check(you, s, "complete")
		var whole exchange
		you.ask(
			t, s, "POST", fmt.Sprintf("/api/v1/chats/%d/messages", r.chatID), `{"message":"go on"}`, "Accept: application/json",
		).want(t, 200).decode(t, &whole)
		if got, want := whole.Message.Content, "user: break off. assistant: The first half, . All of it."; got != want {
			t.Errorf("the next send to the same chat: got %q, want %q", got, want)
		}
	})
}

func TestABackendThatHangs(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		settings = with(settings, serveBackend(t, "127.0.0.1:0", moody)...)
		s := start(t, with(settings, "GRPC_AI_BACKEND_TOKEN=open-sesame", "AI_FIRST_CHUNK_TIMEOUT=300ms")...)
		you := signUp(t, s)
		r := you.say(t, s, "hang")
		r.through()
		if want := "error backend_timeout"; r.end != want || r.text != "" {
			t.Errorf("got %q after %q, want %q after nothing", r.end, r.text, want)
		}
		r.check(you, s, "failed")
		// A busy machine may take 300 ms for an honest answer too.
		eventually(t, "the next send works", func() bool {
			next := you.say(t, s, "Hello")
			next.through()
			return next.end == "message_complete"
		})
	})
}

func TestABackendThatRefusesTheCredential(t *testing.T) {
	t.Parallel()
	settings := with(database(t, "sqlite"), serveBackend(t, "127.0.0.1:0", moody)...)
	s := start(t, with(settings, "GRPC_AI_BACKEND_TOKEN=open-barley")...)
	you := signUp(t, s)
	r := you.say(t, s, "Hello")
	r.through()
	if want := "error backend_refused"; r.end != want {
		t.Errorf("got %q, want %q", r.end, want)
	}
}
