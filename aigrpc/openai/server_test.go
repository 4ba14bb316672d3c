package openai_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"parley/aigrpc/amandaai"
	"parley/aigrpc/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An asked is a request as a model's server got it.
type asked struct {
	Method, Path, Authorization string
	Body                        any
}

// A modelServer is a model's server that answers as its function says, and
// keeps what it is asked.
type modelServer struct {
	*httptest.Server

	mu    sync.Mutex
	asked []asked
}

// serve starts a model's server until the test ends. The number of the request
// goes with it, from 0.
func serve(t testing.TB, answer func(number int, w http.ResponseWriter, r *http.Request)) *modelServer {
	t.Helper()
	s := new(modelServer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		a := asked{Method: r.Method, Path: r.URL.Path, Authorization: r.Header.Get("Authorization")}
		if len(text) > 0 {
			if err := json.Unmarshal(text, &a.Body); err != nil {
				t.Errorf("%v in %s", err, text)
			}
		}
		s.mu.Lock()
		number := len(s.asked)
		s.asked = append(s.asked, a)
		s.mu.Unlock()
		answer(number, w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// requests returns what the server was asked so far.
func (s *modelServer) requests() []asked {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]asked(nil), s.asked...)
}

// says answers with that stream, as it is.
func says(stream string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		_, _ = io.WriteString(w, stream)
	}
}

// refuses answers with that status and body.
func refuses(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

// broken is a stream whose connection breaks after it.
func broken(stream string) func(int, http.ResponseWriter, *http.Request) {
	return func(_ int, w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, stream)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

func newProvider(t testing.TB, c openai.Config) *openai.Server {
	t.Helper()
	if c.Model == "" {
		c.Model = "a-model"
	}
	ai, err := openai.New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ai.Close(); err != nil {
			t.Error(err)
		}
	})
	return ai
}

// ask asks a provider by gRPC and returns its chunks and the error they end
// with.
func ask(ctx context.Context, t *testing.T, c openai.Config, m *amandaai.ChatMessage) ([]*amandaai.ChatChunk, error) {
	t.Helper()
	var chunks []*amandaai.ChatChunk
	err := listen(ctx, t, newProvider(t, c), m, func(c *amandaai.ChatChunk) { chunks = append(chunks, c) })
	return chunks, err
}

func listen(ctx context.Context, t testing.TB, ai amandaai.AIServiceServer, m *amandaai.ChatMessage, each func(*amandaai.ChatChunk)) error {
	t.Helper()
	// What a caller who has left does not see any more, a log would.
	handled := grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		err := handle(srv, stream)
		if stream.Context().Err() != nil && status.Code(err) != codes.Canceled {
			t.Errorf("the call of somebody who has left: got %v, want %v", err, codes.Canceled)
		}
		return err
	})
	server, pipe := grpc.NewServer(grpc.WaitForHandlers(true), handled), bufconn.Listen(64<<10)
	amandaai.RegisterAIServiceServer(server, ai)
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(pipe) })
	defer serving.Wait()
	defer server.Stop()

	conn, err := grpc.NewClient(
		"passthrough:///provider",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answer, err := amandaai.NewAIServiceClient(conn).StreamChat(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	for {
		chunk, err := answer.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		each(chunk)
	}
}

// told is what a caller learns of a failure.
type told struct {
	Code       codes.Code
	Reason     string
	RetryAfter time.Duration
}

func toldBy(err error) told {
	s := status.Convert(err)
	got := told{Code: s.Code()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			got.Reason = d.GetReason()
		case *errdetails.RetryInfo:
			got.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return got
}

func text(s string) *amandaai.ChatChunk { return &amandaai.ChatChunk{Text: s} }

func done(reason string, usage *amandaai.Usage) *amandaai.ChatChunk {
	return &amandaai.ChatChunk{Done: true, FinishReason: reason, Usage: usage}
}

func continued(c *amandaai.ChatChunk) *amandaai.ChatChunk {
	c.Continued = true
	return c
}

func user(text string) *amandaai.Turn { return &amandaai.Turn{Role: "user", Content: text} }

func assistant(text string) *amandaai.Turn {
	return &amandaai.Turn{Role: "assistant", Content: text}
}

// golden is a file of testdata.
func golden(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func goldenJSON(t *testing.T, name string) any {
	t.Helper()
	var v any
	decoder := json.NewDecoder(bytes.NewReader(golden(t, name)))
	if err := decoder.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

// within fails the test when nothing comes from c.
func within[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(time.Minute):
		t.Fatal("nothing happened")
		panic("unreachable")
	}
}
