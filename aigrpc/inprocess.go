package aigrpc

import (
	"context"
	"math"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/test/bufconn"

	"parley/aigrpc/amandaai"
)

const pipeBytes = 256 << 10

// InProcess serves ai in this process and returns a client of it, so that a
// provider of our own goes the same way as a service elsewhere: gRPC, with
// grpc.health.v1, over a connection in memory. Close ends both, and waits for
// the calls that ai still answers.
func InProcess(ai amandaai.AIServiceServer, d Deadlines) (*Client, error) {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(math.MaxInt32), // a history has no limit of its own
		grpc.WaitForHandlers(true),
	)
	amandaai.RegisterAIServiceServer(server, ai)
	grpc_health_v1.RegisterHealthServer(server, health.NewServer())

	pipe := bufconn.Listen(pipeBytes)
	client, err := newClient(
		"inprocess", d,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return pipe.DialContext(ctx)
		}),
	)
	if err != nil {
		return nil, err
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Serve ends by Stop alone: the listener is ours and has no faults.
		_ = server.Serve(pipe)
	}()
	client.stop = func() {
		server.Stop()
		<-served
	}
	return client, nil
}
