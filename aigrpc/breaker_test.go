package aigrpc_test

import (
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/stream"
)

func TestABackendThatIsDownIsLeftAlone(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	client := dial(t, aigrpc.Config{Target: address})
	down := failure{stream.CodeBackendUnavailable, true}
	for i := range 5 {
		if err := client.Admit(); err != nil {
			t.Fatalf("not admitted after %d failures: %v", i, err)
		}
		if _, err := reply(t.Context(), client, stream.Prompt{}); failureOf(err) != down {
			t.Fatalf("got %v, want it unavailable", err)
		}
	}
	if got := failureOf(client.Admit()); got != down {
		t.Errorf("after five failures in a row got %+v, want %+v", got, down)
	}

	serve(t, address, says(nil, text("I am back.")))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		// What was taken over is not asked whether it is admitted.
		if _, err = reply(t.Context(), client, stream.Prompt{}); err == nil && client.Admit() == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the backend is back and not asked: %v", err)
		}
	}
}

// Who watches sees no recovery where there was only a pause: that a reply may try
// again says nothing of the backend.
func TestABackendIsDownUntilItAnswers(t *testing.T) {
	t.Parallel()
	var back atomic.Bool
	client := inProcess(t, func(m *amandaai.ChatMessage, out answers) error {
		if back.Load() {
			return says(nil, text("I am back."))(m, out)
		}
		return status.Error(codes.Unavailable, "gone")
	})
	for i := range 5 {
		if client.Down() {
			t.Fatalf("it is down after %d failures", i)
		}
		if _, err := reply(t.Context(), client, stream.Prompt{}); err == nil {
			t.Fatal("there is no error")
		}
	}
	for end := time.Now().Add(20 * time.Second); client.Admit() != nil; time.Sleep(10 * time.Millisecond) {
		if !client.Down() {
			t.Fatal("it is left alone, and not down")
		}
		if time.Now().After(end) {
			t.Fatal("nobody is admitted any more")
		}
	}
	if !client.Down() {
		t.Error("it is not down, and has not answered")
	}
	back.Store(true)
	if _, err := reply(t.Context(), client, stream.Prompt{}); err != nil {
		t.Fatal(err)
	}
	if client.Down() {
		t.Error("it has answered, and is down")
	}
}

func TestABackendThatAnswersIsNotDown(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]error{
		"that it is busy":       status.Error(codes.ResourceExhausted, "later"),
		"that it is broken":     status.Error(codes.Internal, "oh"),
		"that it does not want": status.Error(codes.InvalidArgument, "no"),
		"nothing":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := inProcess(t, says(answer))
			for range 20 {
				if _, err := reply(t.Context(), client, stream.Prompt{}); err == nil {
					t.Fatal("there is no answer, and no error")
				}
			}
			if err := client.Admit(); err != nil {
				t.Errorf("got %v, want it admitted", err)
			}
		})
	}
}
