package aigrpc_test

import (
	"net"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"parley/aigrpc"
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
