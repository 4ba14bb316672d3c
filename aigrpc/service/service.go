// Package service is an AI provider as a gRPC service of its own, for one
// Parley to be the AI backend of another: TLS, a bearer credential, health,
// reflection, bounds, and an orderly end. It never knows how the provider
// answers, nor looks into what is said. Its one invariant: nobody without the
// credential gets further than the health service, and a call that panics takes
// no other one with it.
package service

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"parley/aigrpc/amandaai"
)

// Errors of Config.Check. None of them holds the credential.
var (
	ErrToken       = errors.New("service: the bearer credential is not printable ASCII without spaces")
	ErrCertificate = errors.New("service: bad certificate or key")
)

// Config says how a provider is served.
type Config struct {
	// Token is what callers have to present as a bearer credential:
	// AI_SERVICE_TOKEN. Empty: anyone who reaches the port may call.
	Token string
	// TLSCert and TLSKey are PEM files with the service's certificate chain and
	// its key: AI_SERVICE_TLS_CERT, AI_SERVICE_TLS_KEY. Without them the
	// service speaks in the clear.
	TLSCert, TLSKey string

	// DrainTimeout is how long an ending service goes on with its answers:
	// DRAIN_TIMEOUT. 0: 20 s.
	DrainTimeout time.Duration
	// MaxRequestBytes bounds a request, which holds a whole history. 0: 64 MiB.
	MaxRequestBytes int
	// MaxCalls bounds the calls at once on one connection; further ones wait at
	// their caller's. 0: 1,000.
	MaxCalls uint32

	// Voice hears and speaks. nil: the service does neither.
	Voice amandaai.VoiceServiceServer

	// Log gets a line for each call that fails, and is never told what was said.
	// nil: nothing is logged.
	Log *slog.Logger
}

const (
	defaultDrainTimeout    = 20 * time.Second
	defaultMaxRequestBytes = 64 << 20
	defaultMaxCalls        = 1000

	maxHeaderBytes = 16 << 10
)

// Check says what New would refuse: ErrToken, ErrCertificate or nothing.
func (c Config) Check() error {
	if strings.ContainsFunc(c.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return ErrToken
	}
	_, err := c.transport()
	return err
}

// transport is how the service encrypts; nil if it does not.
func (c Config) transport() (credentials.TransportCredentials, error) {
	if c.TLSCert == "" && c.TLSKey == "" {
		return nil, nil
	}
	certificate, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	return credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{certificate},
		MinVersion:   tls.VersionTLS12,
	}), nil
}

// A Server serves one provider. Serve may be called once.
type Server struct {
	grpc     *grpc.Server
	health   *health.Server
	provider amandaai.AIServiceServer
	token    [sha256.Size]byte
	open     bool // no credential is asked for
	drain    time.Duration
	calls    calls
	log      *slog.Logger
}

// New returns a service of the provider ai. Where ai has a method
//
//	Health(context.Context) error
//
// the service's health is that of ai, as asked every 15 s.
func New(c Config, ai amandaai.AIServiceServer) (*Server, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	transport, err := c.transport()
	if err != nil {
		return nil, err
	}
	s := &Server{
		health:   health.NewServer(),
		provider: ai,
		token:    sha256.Sum256([]byte(c.Token)),
		open:     c.Token == "",
		drain:    orDefault(c.DrainTimeout, defaultDrainTimeout),
		log:      cmp.Or(c.Log, slog.New(slog.DiscardHandler)),
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(transport),
		grpc.MaxRecvMsgSize(orDefault(c.MaxRequestBytes, defaultMaxRequestBytes)),
		grpc.MaxConcurrentStreams(orDefault(c.MaxCalls, defaultMaxCalls)),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(10*time.Second),
		grpc.WaitForHandlers(true),
		// Our own client asks every 20 s whether a silent connection still
		// stands; gRPC's default takes a client that asks more often than every
		// 5 min for an attack.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 10 * time.Second}),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	)
	amandaai.RegisterAIServiceServer(s.grpc, ai)
	if c.Voice != nil {
		amandaai.RegisterVoiceServiceServer(s.grpc, c.Voice)
		s.health.SetServingStatus(amandaai.VoiceService_ServiceDesc.ServiceName, grpc_health_v1.HealthCheckResponse_SERVING)
	}
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	reflection.Register(s.grpc)
	return s, nil
}

func orDefault[T int | uint32 | time.Duration](value, preset T) T {
	if value <= 0 {
		return preset
	}
	return value
}

// Serve answers on l until ctx ends, and then says that it is not serving,
// takes no more calls, and goes on with those that run for as long as
// DrainTimeout. It closes l, and returns when all calls have ended: nil after an
// orderly end, the listener's error otherwise.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	serving, stop := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		s.watchProvider(serving)
	}()
	served := make(chan error, 1)
	go func() { served <- s.grpc.Serve(l) }()

	var err error
	select {
	case err = <-served:
		s.grpc.Stop()
	case <-ctx.Done():
		s.end()
		err = <-served
	}
	stop()
	<-watched
	if errors.Is(err, grpc.ErrServerStopped) { // before it served
		return nil
	}
	return err
}

// farewell is how long the calls that are not answers, such as watching the
// health, may take to end by themselves when no answer runs any more.
const farewell = time.Second

// end drains the server and stops it.
func (s *Server) end() {
	s.health.Shutdown()
	idle := s.calls.drain()
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.grpc.GracefulStop()
	}()
	late := time.NewTimer(s.drain)
	defer late.Stop()
	select {
	case <-stopped:
	case <-late.C:
	case <-idle:
		late.Reset(min(farewell, s.drain))
		select {
		case <-stopped:
		case <-late.C:
		}
	}
	s.grpc.Stop()
	<-stopped
}

const (
	probeInterval = 15 * time.Second
	probeTimeout  = 5 * time.Second
)

// watchProvider keeps the health up to date with the provider's until ctx ends.
func (s *Server) watchProvider(ctx context.Context) {
	asked, ok := s.provider.(interface{ Health(context.Context) error })
	if !ok {
		s.setHealth(grpc_health_v1.HealthCheckResponse_SERVING)
		return
	}
	s.setHealth(grpc_health_v1.HealthCheckResponse_NOT_SERVING) // until it is known
	t := time.NewTicker(probeInterval)
	defer t.Stop()
	for well, first := true, true; ; first = false {
		err := s.probe(ctx, asked.Health)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil && (well || first):
			s.log.Warn("the provider does not answer", "err", err)
			s.setHealth(grpc_health_v1.HealthCheckResponse_NOT_SERVING)
		case err == nil && (!well || first):
			if !first {
				s.log.Info("the provider answers again")
			}
			s.setHealth(grpc_health_v1.HealthCheckResponse_SERVING)
		}
		well = err == nil
		select {
		case <-t.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Server) probe(ctx context.Context, healthOf func(context.Context) error) error {
	asking, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return healthOf(asking)
}

// setHealth says how the whole of it is, and the AI service. While the server
// ends it changes nothing.
func (s *Server) setHealth(status grpc_health_v1.HealthCheckResponse_ServingStatus) {
	s.health.SetServingStatus("", status)
	s.health.SetServingStatus(amandaai.AIService_ServiceDesc.ServiceName, status)
}
