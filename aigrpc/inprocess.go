package aigrpc

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"runtime"
	"runtime/debug"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"parley/aigrpc/amandaai"
)

const pipeBytes = 256 << 10

// InProcess serves ai in this process and returns a client of it, so that a
// provider of our own goes the same way as a service elsewhere: gRPC, with
// grpc.health.v1, over a connection in memory. Close ends both, and waits for
// the calls that ai still answers, and closes an ai that is an io.Closer. A panic of
// ai is told to log, and fails one reply. more is as for Dial.
func InProcess(ai amandaai.AIServiceServer, d Deadlines, log *slog.Logger, more ...grpc.DialOption) (*Client, error) {
	s := newInProcess(log)
	amandaai.RegisterAIServiceServer(s.grpc, ai)
	client, err := newClient(inProcessTarget, d, append(s.options(), more...)...)
	if err != nil {
		return nil, err
	}
	client.stop = s.serve(ai)
	return client, nil
}

// InProcessVoice is InProcess for one who hears and speaks.
func InProcessVoice(voice amandaai.VoiceServiceServer, d Deadlines, log *slog.Logger, more ...grpc.DialOption) (*Voice, error) {
	s := newInProcess(log)
	amandaai.RegisterVoiceServiceServer(s.grpc, voice)
	client, err := newVoice(inProcessTarget, d, append(s.options(), more...)...)
	if err != nil {
		return nil, err
	}
	client.stop = s.serve(voice)
	return client, nil
}

const inProcessTarget = "inprocess"

// An inProcess is a server in this process.
type inProcess struct {
	grpc *grpc.Server
	pipe *bufconn.Listener
}

func newInProcess(log *slog.Logger) inProcess {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(math.MaxInt32), // a history has no limit of its own
		grpc.WaitForHandlers(true),
		grpc.StreamInterceptor(survive(log)),
	)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())
	return inProcess{server, bufconn.Listen(pipeBytes)}
}

// options are how the server is spoken to.
func (s inProcess) options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return s.pipe.DialContext(ctx)
		}),
	}
}

// serve begins to serve and returns what ends it, and closes the provider.
func (s inProcess) serve(provider any) (stop func()) {
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Serve ends by Stop alone: the listener is ours and has no faults.
		_ = s.grpc.Serve(s.pipe)
	}()
	return func() {
		s.grpc.Stop()
		<-served
		if c, ok := provider.(io.Closer); ok {
			c.Close()
		}
	}
}

// survive makes a panic of a provider the failure of one reply: gRPC would let
// it end the program, and all other replies with it.
func survive(log *slog.Logger) grpc.StreamServerInterceptor {
	return func(srv any, out grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = status.Error(codes.Internal, "the provider panicked")
				log.Error("the AI provider panicked", "panic", panicked(p), "stack", string(debug.Stack()))
			}
		}()
		return handle(srv, out)
	}
}

// panicked says what a panic was, without what was said: a fault of the runtime
// names no text, and of any other value the type has to do.
func panicked(p any) string {
	if fault, ok := p.(runtime.Error); ok {
		return fault.Error()
	}
	return fmt.Sprintf("%T", p)
}
