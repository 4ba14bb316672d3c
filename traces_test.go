package main_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"parley/aigrpc/amandaai"
)

// A collection is a collector of traces, and all that it was sent.
type collection struct {
	url string

	mu    sync.Mutex
	raw   []byte
	spans []*trace.Span
	asked []http.Header
}

// collect starts a collector until the test's end. It takes traces as the
// specification of OTLP/HTTP says.
func collect(t *testing.T) *collection {
	t.Helper()
	c := new(collection)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/otel/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
			t.Errorf("the collector is asked %s %s with %s", r.Method, r.URL.Path, r.Header.Get("Content-Type"))
		}
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			unpacked, err := gzip.NewReader(r.Body)
			if err != nil {
				t.Error(err)
				return
			}
			body = unpacked
		}
		raw, err := io.ReadAll(body)
		var sent collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(raw, &sent)
		}
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.raw = append(c.raw, raw...)
		c.asked = append(c.asked, r.Header)
		for _, resource := range sent.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				c.spans = append(c.spans, scope.GetSpans()...)
			}
		}
	}))
	t.Cleanup(server.Close)
	c.url = server.URL + "/otel"
	return c
}

// named returns the spans of a name.
func (c *collection) named(name string) []*trace.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []*trace.Span
	for _, span := range c.spans {
		if span.GetName() == name {
			found = append(found, span)
		}
	}
	return found
}

// only returns the one span of a name.
func (c *collection) only(t *testing.T, name string) *trace.Span {
	t.Helper()
	spans := c.named(name)
	if len(spans) != 1 {
		t.Fatalf("%d spans are called %s, want 1", len(spans), name)
	}
	return spans[0]
}

// attributes are those of a span, as texts.
func attributes(span *trace.Span) map[string]string {
	found := make(map[string]string)
	for _, a := range span.GetAttributes() {
		found[a.GetKey()] = a.GetValue().GetStringValue()
		if found[a.GetKey()] == "" {
			found[a.GetKey()] = fmt.Sprint(a.GetValue().GetIntValue())
		}
	}
	return found
}

// A request, its statements and the call to the backend are one trace, of which
// the backend is told. Nothing that a user or the backend says is in it.
func TestTraces(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, settings []string) {
		c := collect(t)
		var mu sync.Mutex
		var told []string
		backend := serveBackend(t, "127.0.0.1:0", func(m *amandaai.ChatMessage, out chunks) error {
			md, _ := metadata.FromIncomingContext(out.Context())
			mu.Lock()
			told = append(told, strings.Join(md.Get("traceparent"), ","))
			mu.Unlock()
			if m.GetMessage() == "a diary that fails" {
				return status.Error(codes.Internal, "cannot answer: "+m.GetMessage())
			}
			return out.Send(&amandaai.ChatChunk{Text: "private words", Done: true})
		})
		s := start(t, with(with(settings, backend...),
			"OTEL_EXPORTER_OTLP_ENDPOINT="+c.url, "OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20b3Blbg==,x-scope=a", "OTEL_SERVICE_NAME=chat",
		)...)
		you := signUp(t, s)
		r := you.say(t, s, "a diary entry")
		r.through()
		if r.end != "message_complete" || r.text != "private words" {
			t.Errorf("the stream is %q, and ended by %q", r.text, r.end)
		}
		failed := you.say(t, s, "a diary that fails")
		failed.through()
		var ticket struct{ Ticket string }
		you.ask(t, s, "POST", fmt.Sprintf("/api/v1/messages/%d/stream-ticket", r.messageID), "").want(t, 200).decode(t, &ticket)
		nobody.ask(t, s, "GET", fmt.Sprintf("/api/v1/messages/%d/stream?ticket=%s", r.messageID, ticket.Ticket), "").want(t, 200)
		nobody.ask(t, s, "GET", "/api/v1/auth/reset-password/a-reset-token", "").want(t, 400)
		// A stranger's trace is not gone on with.
		nobody.ask(t, s, "GET", "/livez", "", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").want(t, 200)
		s.signal(t, syscall.SIGTERM)
		s.exitCode(t)

		sends, calls := c.named("POST /api/v1/messages"), c.named("amanda.ai.AIService/StreamChat")
		if len(sends) != 2 || len(calls) != 2 || len(told) != 2 {
			t.Fatalf("%d sends, %d calls, %d that the backend had; want 2 of each", len(sends), len(calls), len(told))
		}
		for i := range 2 {
			send, call := sends[i], calls[i]
			if want := fmt.Sprintf("00-%x-%x-01", call.GetTraceId(), call.GetSpanId()); told[i] != want {
				t.Errorf("the backend is told %q, want %q", told[i], want)
			}
			if !bytes.Equal(call.GetTraceId(), send.GetTraceId()) || !bytes.Equal(call.GetParentSpanId(), send.GetSpanId()) {
				t.Errorf("the call is no part of its request: %v, %v", call, send)
			}
		}
		send := attributes(sends[0])
		delete(send, "parley.request_id")
		if diff := cmp.Diff(map[string]string{
			"http.request.method": "POST", "http.route": "/api/v1/messages", "http.response.status_code": "200",
		}, send); diff != "" {
			t.Errorf("the request (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]string{
			"rpc.system": "grpc", "rpc.service": "amanda.ai.AIService", "rpc.method": "StreamChat", "rpc.grpc.status_code": "13",
		}, attributes(calls[1])); diff != "" {
			t.Errorf("the call that failed (-want +got):\n%s", diff)
		}
		if sends[0].GetKind() != trace.Span_SPAN_KIND_SERVER || calls[0].GetKind() != trace.Span_SPAN_KIND_CLIENT {
			t.Errorf("the kinds are %s and %s", sends[0].GetKind(), calls[0].GetKind())
		}
		if span := c.only(t, "GET /livez"); len(span.GetParentSpanId()) != 0 {
			t.Errorf("a stranger's trace is gone on with: %v", span)
		}
		system, stores := "sqlite", "INSERT INTO "
		if strings.Contains(settings[0], "postgres") {
			system, stores = "postgresql", "admit_turn("
		}
		below := 0
		for _, span := range c.spans {
			a := attributes(span)
			if bytes.Equal(span.GetParentSpanId(), sends[0].GetSpanId()) && a["db.system.name"] == system && strings.Contains(a["db.query.text"], stores) {
				below++
			}
		}
		if below == 0 {
			t.Error("no statement of the send is part of it")
		}
		for _, span := range c.spans {
			if span.GetKind() == trace.Span_SPAN_KIND_CLIENT && len(span.GetParentSpanId()) == 0 {
				t.Errorf("%s is part of nothing", span.GetName())
			}
		}
		for _, secret := range []string{
			"diary", "private", "cannot answer", "correct horse", "you@example.com", you.AccessToken, you.RefreshToken, ticket.Ticket, "a-reset-token", "127.0.0.1",
		} {
			if bytes.Contains(c.raw, []byte(secret)) {
				t.Errorf("%q is in what the collector was sent", secret)
			}
		}
		if !bytes.Contains(c.raw, []byte("chat")) {
			t.Error("the name of the service is not told")
		}
		if !slices.ContainsFunc(c.asked, func(h http.Header) bool {
			return h.Get("Authorization") == "Basic b3Blbg==" && h.Get("X-Scope") == "a"
		}) {
			t.Error("the collector does not get the headers that are set")
		}
	})
}

// A proxy of ours may say which trace a request is part of.
func TestATraceThatAProxyBegan(t *testing.T) {
	t.Parallel()
	c := collect(t)
	s := start(t, with(database(t, "sqlite"), "TRUSTED_PROXIES=127.0.0.1", "OTEL_EXPORTER_OTLP_ENDPOINT="+c.url)...)
	// The example of W3C Trace Context, section 3.2.4.
	nobody.ask(t, s, "GET", "/livez", "", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").want(t, 200)
	s.signal(t, syscall.SIGTERM)
	s.exitCode(t)
	span := c.only(t, "GET /livez")
	if got := fmt.Sprintf("%x-%x", span.GetTraceId(), span.GetParentSpanId()); got != "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331" {
		t.Errorf("it is part of %s", got)
	}
}

// A collector that is down costs the spans, and nothing else.
func TestACollectorThatIsDown(t *testing.T) {
	t.Parallel()
	s := start(t, with(database(t, "sqlite"), "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1")...)
	you := signUp(t, s)
	r := you.say(t, s, "Hello")
	r.through()
	if r.end != "message_complete" {
		t.Errorf("the reply ended by %q", r.end)
	}
	s.signal(t, syscall.SIGTERM)
	if code := s.exitCode(t); code != 0 {
		t.Errorf("it ended with %d", code)
	}
	if !slices.ContainsFunc(s.log, func(line string) bool { return strings.Contains(line, "spans are") }) {
		t.Errorf("its log does not say so:\n%s", strings.Join(s.log, "\n"))
	}
}
