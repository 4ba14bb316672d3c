package tracing

import (
	"context"
	"net/http"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Request begins the span of an HTTP request with that id, and returns the context
// that has it and what ends it: with the pattern of the route, empty where there
// was none, and the status. The trace that the request names is gone on with only
// where ours says that a proxy of ours has sent it: a stranger could have every
// request of his sampled.
//
// The span of a stream ends as the stream opens.
func (t *Tracer) Request(r *http.Request, id string, ours bool) (ctx context.Context, end func(route string, status int)) {
	ctx = r.Context()
	if ours {
		ctx = format.Extract(ctx, propagation.HeaderCarrier(r.Header))
	}
	method := known(r.Method)
	ctx, span := t.tracer.Start( //nolint:spancheck // what is returned ends it
		ctx, method,
		trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(attribute.String("http.request.method", method), attribute.String("parley.request_id", id)),
	)
	return ctx, func(route string, status int) { //nolint:spancheck // see above
		if route != "" {
			span.SetName(method + " " + route)
			span.SetAttributes(attribute.String("http.route", route))
		}
		span.SetAttributes(attribute.Int("http.response.status_code", status))
		if status >= http.StatusInternalServerError {
			span.SetStatus(codes.Error, "")
		}
		span.End()
	}
}

// known is method, or _OTHER for one that a client made up, as the semantic
// conventions for HTTP spans have it.
func known(method string) string {
	methods := []string{
		http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions,
	}
	if slices.Contains(methods, method) {
		return method
	}
	return "_OTHER"
}
