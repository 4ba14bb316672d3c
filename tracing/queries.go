package tracing

import (
	"context"
	"database/sql"
	"errors"

	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Queries makes the spans of statements to a database of that name, such as sqlite
// or postgresql. Only those that are part of something have one: what the program
// asks by itself, many times a second, is no trace of anything.
func (t *Tracer) Queries(database string) bun.QueryHook { return queries{t, database} }

type queries struct {
	t        *Tracer
	database string
}

type queryKey struct{}

// BeforeQuery begins the span of a statement.
func (q queries) BeforeQuery(ctx context.Context, event *bun.QueryEvent) context.Context {
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return ctx
	}
	text := statement(event.Query)
	// The statement's own context has no such span: what follows in the same
	// transaction is beside it, and not below.
	_, span := q.t.tracer.Start( //nolint:spancheck // AfterQuery ends it
		ctx, summary(text),
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithAttributes(attribute.String("db.system.name", q.database), attribute.String("db.query.text", text)),
	)
	return context.WithValue(ctx, queryKey{}, span) //nolint:spancheck // see above
}

// AfterQuery ends it. What a database says of an error may quote values.
func (q queries) AfterQuery(ctx context.Context, event *bun.QueryEvent) {
	span, ok := ctx.Value(queryKey{}).(trace.Span)
	if !ok {
		return
	}
	if event.Err != nil && !errors.Is(event.Err, sql.ErrNoRows) {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}
