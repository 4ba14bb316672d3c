// Package aigrpc speaks to the AI backend: a gRPC service that answers in
// chats, hears and speaks, elsewhere or in this process. It never knows HTTP, the
// database, or who is signed in, and keeps nothing of what passes through it. Its
// one invariant: a call ends in exactly one way, and text on its way out of here
// is valid UTF-8 without NUL, whatever the backend sent.
package aigrpc

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/sony/gobreaker/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"parley/stream"
)

// Config says where the AI backend is and how it is spoken to.
type Config struct {
	// Target is the backend's host:port. The name is looked up anew with each
	// connection, so that a backend may come back under another address.
	Target string

	// TLS encrypts the connection and verifies the backend's certificate, by
	// the roots in the PEM file CAFile, or by the system's if that is empty.
	TLS    bool
	CAFile string

	// Token goes with every call as a bearer credential, if it is not empty.
	// It is never sent in the clear except to this machine.
	Token string

	Deadlines Deadlines
}

// Check says what Dial would refuse: ErrTarget, ErrCA, ErrToken, ErrInsecureToken
// or nothing.
func (c Config) Check() error {
	_, err := transportCredentials(c)
	if err == nil && c.Token != "" {
		_, err = bearerCredential(c)
	}
	return err
}

// Deadlines say how long a reply may take. What is not positive has its
// default.
type Deadlines struct {
	// FirstChunk is how long a reply may take to begin, with connecting and
	// the retry; 30 s by default.
	FirstChunk time.Duration
	// Chunk is how long a reply that began may be silent; 30 s by default.
	Chunk time.Duration
	// Reply is how long it may take in all; 10 min by default.
	Reply time.Duration
}

func (d Deadlines) withDefaults() Deadlines {
	set := func(d *time.Duration, preset time.Duration) {
		if *d <= 0 {
			*d = preset
		}
	}
	set(&d.FirstChunk, 30*time.Second)
	set(&d.Chunk, 30*time.Second)
	set(&d.Reply, 10*time.Minute)
	return d
}

const (
	// A chunk is a word or a sentence; more than this is a fault.
	maxChunkBytes = 4 << 20

	healthTimeout = 3 * time.Second
)

// serviceConfig gives a reply one second attempt, and speech too. gRPC makes it
// only where the first one ended without a chunk.
const serviceConfig = `{
	"methodConfig": [{
		"name": [
			{"service": "amanda.ai.AIService"},
			{"service": "amanda.ai.VoiceService", "method": "Synthesize"}
		],
		"retryPolicy": {
			"maxAttempts": 2,
			"initialBackoff": "0.2s",
			"maxBackoff": "1s",
			"backoffMultiplier": 2,
			"retryableStatusCodes": ["UNAVAILABLE"]
		}
	}]
}`

// A Client is a connection to the AI backend. It may be used by many
// goroutines. It connects, and connects again, by itself; Close ends it.
type Client struct {
	conn      *grpc.ClientConn
	health    grpc_health_v1.HealthClient
	breaker   *gobreaker.TwoStepCircuitBreaker[struct{}]
	deadlines Deadlines
	stop      func() // ends a backend of our own
}

var _ stream.Backend = (*Client)(nil)

// Dial makes a client of the backend that c describes. It does not wait for
// the connection: a backend that is down is an error of a reply, not of Dial. more
// is for what watches the calls.
func Dial(c Config, more ...grpc.DialOption) (*Client, error) {
	opts, err := c.options()
	if err != nil {
		return nil, err
	}
	return newClient(c.Target, c.Deadlines, append(opts, more...)...)
}

// options are how the backend is spoken to.
func (c Config) options() ([]grpc.DialOption, error) {
	transport, err := transportCredentials(c)
	if err != nil {
		return nil, err
	}
	opts := []grpc.DialOption{
		grpc.WithTransportCredentials(transport),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time:    20 * time.Second,
			Timeout: 5 * time.Second,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay:  100 * time.Millisecond,
				Multiplier: 1.6,
				Jitter:     0.2,
				MaxDelay:   800 * time.Millisecond, // with jitter, under a second
			},
			MinConnectTimeout: 3 * time.Second,
		}),
	}
	if c.Token != "" {
		bearer, err := bearerCredential(c)
		if err != nil {
			return nil, err
		}
		opts = append(opts, grpc.WithPerRPCCredentials(bearer))
	}
	return opts, nil
}

func newClient(target string, d Deadlines, opts ...grpc.DialOption) (*Client, error) {
	conn, err := connect(target, opts...)
	if err != nil {
		return nil, err
	}
	return &Client{
		conn:      conn,
		health:    grpc_health_v1.NewHealthClient(conn),
		breaker:   newBreaker(),
		deadlines: d.withDefaults(),
		stop:      func() {},
	}, nil
}

// connWindow is how many bytes of all replies together may be on their way to this
// process. By gRPC's own measure they are 64 KiB until it has seen a faster
// connection, which are a second of a thousand replies: whenever this process comes
// late, they wait in the backend. What one reply may have here unread stays 64 KiB.
const connWindow = 4 << 20

// connect returns a connection that makes itself.
func connect(target string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append(
		opts,
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithDisableServiceConfig(),
		grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(maxChunkBytes),
			grpc.MaxCallSendMsgSize(math.MaxInt32),
		),
	)
	// The scheme passthrough leaves the look-up to the dialer. gRPC's own
	// resolver asks again only every 30 s.
	conn, err := grpc.NewClient("passthrough:///"+target, opts...)
	if err != nil {
		return nil, fmt.Errorf("aigrpc: %w", err)
	}
	conn.Connect()
	return conn, nil
}

// Close ends the connection and fails the replies that run on it. A backend in
// this process has ended when it returns.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.stop()
	return err
}

// Health asks the backend how it is, by grpc.health.v1: nil when it serves,
// else a *stream.BackendError, or ctx's error when ctx ends first. A backend
// that is there and does not know the question counts as healthy.
func (c *Client) Health(ctx context.Context) error {
	asking, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	answer, err := c.health.Check(asking, &grpc_health_v1.HealthCheckRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return nil
	case err != nil && ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return backendError(err)
	case answer.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING:
		return &stream.BackendError{
			Code:      stream.CodeBackendUnavailable,
			Retryable: true,
			Err:       fmt.Errorf("aigrpc: the backend says %s", answer.GetStatus()),
		}
	}
	return nil
}
