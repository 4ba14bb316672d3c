package service

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

func (s *Server) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	err = s.call(ctx, info.FullMethod, func() error {
		answer, err = handle(ctx, request)
		return err
	})
	return answer, err
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return s.call(stream.Context(), info.FullMethod, func() error { return handle(srv, stream) })
}

// call lets a call through to handle, if it may, and tells the log if it fails,
// unless the caller has left.
func (s *Server) call(ctx context.Context, method string, handle func() error) (err error) {
	if !strings.HasPrefix(method, "/grpc.") { // health and reflection are no answers that an end waits for
		if !s.calls.begin() {
			return status.Error(codes.Unavailable, "the service is ending")
		}
		defer s.calls.end()
	}
	if !strings.HasPrefix(method, "/"+grpc_health_v1.Health_ServiceDesc.ServiceName+"/") && !s.authorized(ctx) {
		return status.Error(codes.Unauthenticated, "the bearer credential is missing or wrong")
	}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a call panicked", "method", method, "err", fmt.Errorf("panic: %s\n%s", panicked(p), debug.Stack()))
			err = status.Error(codes.Internal, "internal error")
		}
	}()
	err = handle()
	if e := status.Convert(err); e.Code() != codes.OK && e.Code() != codes.Canceled && ctx.Err() == nil {
		s.log.Warn("a call failed", "method", method, "code", e.Code().String(), "reason", reason(e))
	}
	return err
}

// panicked says what a panic was, without what was said: a fault of the runtime
// names no text, and of any other value the type has to do.
func panicked(p any) string {
	if fault, ok := p.(runtime.Error); ok {
		return fault.Error()
	}
	return fmt.Sprintf("%T", p)
}

// reason is the word that the error's ErrorInfo has for it, if it has one.
func reason(e *status.Status) string {
	for _, d := range e.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// authorized reports whether a call comes with the credential (RFC 6750,
// section 2.1). How long that takes tells nothing of it.
func (s *Server) authorized(ctx context.Context) bool {
	if s.open {
		return true
	}
	given := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(given) != 1 {
		return false
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	sum := sha256.Sum256([]byte(token))
	return strings.EqualFold(scheme, "Bearer") && subtle.ConstantTimeCompare(sum[:], s.token[:]) == 1
}

// calls counts the answers that run.
type calls struct {
	mu      sync.Mutex
	running int
	idle    chan struct{} // not nil: the server ends
}

// begin counts a call, unless the server ends.
func (c *calls) begin() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.idle != nil {
		return false
	}
	c.running++
	return true
}

func (c *calls) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running--; c.running == 0 && c.idle != nil {
		close(c.idle)
	}
}

// drain lets no more calls begin and returns a channel that is closed when none
// runs.
func (c *calls) drain() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = make(chan struct{})
	if c.running == 0 {
		close(c.idle)
	}
	return c.idle
}
