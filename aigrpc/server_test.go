package aigrpc_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"parley/aigrpc"
	"parley/aigrpc/amandaai"
	"parley/stream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type answers = grpc.ServerStreamingServer[amandaai.ChatChunk]

// A backend answers as its function says.
type backend struct {
	amandaai.UnimplementedAIServiceServer
	answer func(*amandaai.ChatMessage, answers) error
}

func (b backend) StreamChat(m *amandaai.ChatMessage, out answers) error { return b.answer(m, out) }

// says answers with the given chunks and the error last.
func says(last error, chunks ...*amandaai.ChatChunk) func(*amandaai.ChatMessage, answers) error {
	return func(_ *amandaai.ChatMessage, out answers) error {
		for _, c := range chunks {
			if err := out.Send(c); err != nil {
				return err
			}
		}
		return last
	}
}

func text(s string) *amandaai.ChatChunk { return &amandaai.ChatChunk{Text: s} }

// usedSoFar is a chunk of a backend that counts as it goes.
func usedSoFar(s string, input, output int64) *amandaai.ChatChunk {
	return &amandaai.ChatChunk{Text: s, Usage: &amandaai.Usage{InputTokens: input, OutputTokens: output}}
}

// raw is a message that is its own wire format.
type raw string

// rawCodec is protobuf that also sends raw messages.
type rawCodec struct{ encoding.CodecV2 }

func newRawCodec() rawCodec { return rawCodec{encoding.GetCodecV2(proto.Name)} }

func (c rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.(raw); ok {
		return mem.BufferSlice{mem.SliceBuffer([]byte(b))}, nil
	}
	return c.CodecV2.Marshal(v)
}

// serve serves over TCP, at address or at a free one, until the test ends.
func serve(t *testing.T, address string, answer func(*amandaai.ChatMessage, answers) error, opts ...grpc.ServerOption) (*grpc.Server, string) {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(opts...)
	amandaai.RegisterAIServiceServer(s, backend{answer: answer})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		s.Stop()
		<-done
	})
	return s, l.Addr().String()
}

func dial(t *testing.T, c aigrpc.Config) *aigrpc.Client {
	t.Helper()
	client, err := aigrpc.Dial(c)
	if err != nil {
		t.Fatal(err)
	}
	closing(t, client)
	return client
}

func inProcess(t *testing.T, answer func(*amandaai.ChatMessage, answers) error) *aigrpc.Client {
	t.Helper()
	client, err := aigrpc.InProcess(backend{answer: answer}, aigrpc.Deadlines{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	closing(t, client)
	return client
}

func closing(t *testing.T, c *aigrpc.Client) {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// reply collects the answer to p.
func reply(ctx context.Context, c *aigrpc.Client, p stream.Prompt) ([]stream.Chunk, error) {
	var chunks []stream.Chunk
	err := c.Reply(ctx, &p, func(c stream.Chunk) error {
		chunks = append(chunks, c)
		return nil
	})
	return chunks, err
}

// A failure is what a client is told of an error.
type failure struct {
	Code      string
	Retryable bool
}

func failureOf(err error) failure {
	var e *stream.BackendError
	if !errors.As(err, &e) {
		return failure{}
	}
	return failure{e.Code, e.Retryable}
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
