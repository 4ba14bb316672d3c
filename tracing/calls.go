package tracing

import (
	"context"
	"strings"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
)

// Calls makes the spans of a gRPC client's calls, each of which is sent the context
// to go on from. The library that is there for it would put the words of a failing
// backend into them, and a backend may repeat what a user said.
func (t *Tracer) Calls() stats.Handler { return calls{t} }

type calls struct{ t *Tracer }

// A call is one attempt at a call.
type call struct {
	span  trace.Span
	begun atomic.Bool // an answer has come
}

type callKey struct{}

// TagRPC begins the span of a call. Whether a backend is well is asked all the
// time, and is no part of anything.
func (c calls) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	name := strings.TrimPrefix(info.FullMethodName, "/")
	service, method, _ := strings.Cut(name, "/")
	if service == "grpc.health.v1.Health" {
		return ctx
	}
	ctx, span := c.t.tracer.Start(
		ctx, name,
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(
			attribute.String("rpc.system", "grpc"),
			attribute.String("rpc.service", service),
			attribute.String("rpc.method", method),
		),
	)
	sent, found := metadata.FromOutgoingContext(ctx)
	if !found {
		sent = metadata.MD{}
	}
	format.Inject(ctx, carrier(sent)) // a copy of the caller's: FromOutgoingContext makes one
	ctx = metadata.NewOutgoingContext(ctx, sent)
	return context.WithValue(ctx, callKey{}, &call{span: span})
}

// HandleRPC notes when the answer begins, and ends the span with the call.
func (calls) HandleRPC(ctx context.Context, event stats.RPCStats) {
	c, ok := ctx.Value(callKey{}).(*call)
	if !ok {
		return
	}
	switch event := event.(type) {
	case *stats.InPayload:
		if !c.begun.Swap(true) {
			c.span.AddEvent("first message")
		}
	case *stats.End:
		code := status.Code(event.Error)
		c.span.SetAttributes(attribute.Int("rpc.grpc.status_code", int(code)))
		if event.Error != nil {
			c.span.SetStatus(codes.Error, code.String())
		}
		c.span.End()
	}
}

// TagConn does nothing: a connection is no part of a trace.
func (calls) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn does nothing.
func (calls) HandleConn(context.Context, stats.ConnStats) {}

// A carrier is gRPC metadata as what carries a span's context.
type carrier metadata.MD

// Get returns the first value of a key.
func (c carrier) Get(key string) string {
	if values := metadata.MD(c).Get(key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// Set gives a key one value.
func (c carrier) Set(key, value string) { metadata.MD(c).Set(key, value) }

// Keys lists the keys.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}
