// Package tracing tells a collector, by OpenTelemetry's protocol over HTTP, where
// the time of a request went: in the request itself, in its statements to the
// database, and in the call to the AI backend, which is sent the context to go
// on from.
//
// It never knows what a route, a reply or a row is: it is given requests, calls
// and statements as the libraries of those have them.
//
// The invariant: a span holds what the program says, and never what anybody else
// does. No path, query, header, body, value of a statement or word of the
// backend's gets into one, so that no token, ticket or message leaves in it.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config says where spans go, and which.
type Config struct {
	// Endpoint is the base of the collector's URL: the path /v1/traces is added,
	// as OTEL_EXPORTER_OTLP_ENDPOINT wants it.
	Endpoint string
	// Headers go with each request to the collector.
	Headers map[string]string

	Service  string // what the spans are of: the name of the deployment
	Version  string
	Instance string // names this process among the replicas

	Sampler string  // one of Samplers; "" is the first
	Ratio   float64 // of the samplers that take a part of all traces, 0 to 1

	Log *slog.Logger
}

// Samplers are the values of OTEL_TRACES_SAMPLER that Config.Sampler may have.
var Samplers = []string{
	"parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio",
	"always_on", "always_off", "traceidratio",
}

// Check returns an error that says what is wrong with an endpoint, and quotes
// nothing of it.
func Check(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("tracing: the endpoint is not the base of a URL")
	}
	return nil
}

// ParseHeaders reads OTEL_EXPORTER_OTLP_HEADERS: name=value with commas between,
// the values percent-encoded. The error quotes nothing of it.
func ParseHeaders(list string) (map[string]string, error) {
	headers := make(map[string]string)
	for entry := range strings.SplitSeq(list, ",") {
		if strings.TrimSpace(entry) == "" {
			continue
		}
		name, escaped, found := strings.Cut(entry, "=")
		value, err := url.PathUnescape(strings.TrimSpace(escaped))
		name = strings.TrimSpace(name)
		if !found || err != nil || name == "" || strings.ContainsAny(name+value, "\r\n\x00") {
			return nil, fmt.Errorf("tracing: the headers are not a list of name=value")
		}
		headers[name] = value
	}
	return headers, nil
}

// A Tracer makes spans and sends them, some seconds' worth at a time. It is safe
// for concurrent use.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// format is how a span's context travels: the fields traceparent and tracestate of
// W3C Trace Context.
var format = propagation.TraceContext{}

// Start begins to send. It connects to nothing before there is something to send; a
// collector that is down costs the spans, and a line in the log for each attempt.
// Close ends it.
func Start(ctx context.Context, c Config) (*Tracer, error) {
	out, err := otlptracehttp.New(
		ctx,
		otlptracehttp.WithEndpointURL(strings.TrimRight(c.Endpoint, "/")+"/v1/traces"),
		otlptracehttp.WithHeaders(c.Headers),
		otlptracehttp.WithCompression(otlptracehttp.GzipCompression),
		otlptracehttp.WithTimeout(10*time.Second),
	)
	if err != nil {
		return nil, fmt.Errorf("tracing: %w", err)
	}
	provider := sdk.NewTracerProvider(
		sdk.WithBatcher(exporter{out, c.Log}),
		sdk.WithSampler(c.sampler()),
		sdk.WithResource(resource.NewSchemaless(
			attribute.String("service.name", c.Service),
			attribute.String("service.version", c.Version),
			attribute.String("service.instance.id", c.Instance),
		)),
	)
	return &Tracer{provider: provider, tracer: provider.Tracer("parley")}, nil
}

// sampler decides which traces are made.
func (c *Config) sampler() sdk.Sampler {
	name, ofParent := strings.CutPrefix(c.Sampler, "parentbased_")
	var root sdk.Sampler
	switch name {
	case "always_off":
		root = sdk.NeverSample()
	case "traceidratio":
		root = sdk.TraceIDRatioBased(c.Ratio)
	default:
		root = sdk.AlwaysSample()
	}
	if ofParent || c.Sampler == "" {
		return sdk.ParentBased(root)
	}
	return root
}

// Close sends what there is, as far as ctx allows, and ends the sending.
func (t *Tracer) Close(ctx context.Context) error { return t.provider.Shutdown(ctx) }

// Carry returns a context that has nothing of ctx but the place of its span: work
// that outlives a request is part of the request's trace, and keeps nothing of it
// in memory.
func Carry(ctx context.Context) context.Context {
	return trace.ContextWithSpanContext(context.Background(), trace.SpanContextFromContext(ctx))
}

// An exporter tells the log of this program what could not be sent, where the
// library would write to stderr in a form of its own.
type exporter struct {
	sdk.SpanExporter
	log *slog.Logger
}

func (e exporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("spans are lost: the collector did not take them", "spans", len(spans), "err", err)
	}
	return nil
}
