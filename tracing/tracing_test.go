package tracing_test

import (
	"compress/gzip"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc/stats"
	"google.golang.org/protobuf/proto"

	"parley/tracing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A collection counts the spans that a collector was sent, by name.
type collection struct {
	mu    sync.Mutex
	spans map[string]int
}

// collect starts a collector and a tracer that sends there. flush ends both, and
// returns what was collected.
func collect(t *testing.T, change func(*tracing.Config)) (tracer *tracing.Tracer, flush func() map[string]int) {
	t.Helper()
	c := &collection{spans: make(map[string]int)}
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(decoded(t, r))
		var sent collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &sent)
		}
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, resource := range sent.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					c.spans[span.GetName()]++
				}
			}
		}
	}))
	config := tracing.Config{Endpoint: server.URL, Service: "parley", Version: "1", Instance: "a", Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&config)
	}
	tracer, err := tracing.Start(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	return tracer, func() map[string]int {
		if err := tracer.Close(t.Context()); err != nil {
			t.Error(err)
		}
		server.Close()
		return c.spans
	}
}

// traceparent is a trace that somebody else has begun, and takes down or not.
func traceparent(sampled bool) string {
	flags := map[bool]string{true: "01", false: "00"}[sampled]
	return "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-" + flags
}

func TestWhichRequestsAreTraced(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sampler     string
		ratio       float64
		traceparent string
		ours        bool
		want        int
	}{
		"all by themselves":                     {"", 0, "", false, 1},
		"what a proxy of ours traces":           {"parentbased_always_on", 0, traceparent(true), true, 1},
		"not what a proxy of ours does not":     {"parentbased_always_on", 0, traceparent(false), true, 0},
		"whatever a stranger does not":          {"parentbased_always_on", 0, traceparent(false), false, 1},
		"none":                                  {"always_off", 0, traceparent(true), true, 0},
		"only what a proxy traces":              {"parentbased_always_off", 0, traceparent(true), true, 1},
		"and not what a stranger says":          {"parentbased_always_off", 0, traceparent(true), false, 0},
		"a part: all":                           {"traceidratio", 1, "", false, 1},
		"a part: none":                          {"traceidratio", 0, "", false, 0},
		"a part, but for what a proxy traces":   {"parentbased_traceidratio", 0, traceparent(true), true, 1},
		"all, though a proxy does not trace it": {"always_on", 0, traceparent(false), true, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tracer, flush := collect(t, func(c *tracing.Config) { c.Sampler, c.Ratio = tt.sampler, tt.ratio })
			r := httptest.NewRequestWithContext(t.Context(), "GET", "/livez", http.NoBody)
			if tt.traceparent != "" {
				r.Header.Set("traceparent", tt.traceparent)
			}
			ctx, end := tracer.Request(r, "id", tt.ours)
			if got := trace.SpanContextFromContext(tracing.Carry(ctx)); got.IsSampled() != (tt.want == 1) {
				t.Errorf("what is carried is %v", got)
			}
			end("/livez", 200)
			want := map[string]int{}
			if tt.want > 0 {
				want["GET /livez"] = tt.want
			}
			if diff := cmp.Diff(want, flush()); diff != "" {
				t.Errorf("spans (-want +got):\n%s", diff)
			}
		})
	}
}

// What the program asks by itself is no trace, and neither is whether a backend is
// well.
func TestWhatIsPartOfNothing(t *testing.T) {
	t.Parallel()
	tracer, flush := collect(t, nil)
	hook := tracer.Queries("sqlite")
	query := func(ctx context.Context) {
		event := &bun.QueryEvent{Query: "SELECT 1 FROM mails"}
		hook.AfterQuery(hook.BeforeQuery(ctx, event), event)
	}
	query(t.Context())
	calls := tracer.Calls()
	ask := func(ctx context.Context, method string) {
		ctx = calls.TagRPC(ctx, &stats.RPCTagInfo{FullMethodName: method})
		calls.HandleRPC(ctx, &stats.End{})
	}
	ask(t.Context(), "/grpc.health.v1.Health/Check")

	r := httptest.NewRequestWithContext(t.Context(), "BREW", "/nothing", http.NoBody)
	ctx, end := tracer.Request(r, "id", false)
	query(ctx)
	query(tracing.Carry(ctx))
	ask(ctx, "/amanda.ai.AIService/StreamChat")
	end("", 404)
	if diff := cmp.Diff(map[string]int{"_OTHER": 1, "SELECT mails": 2, "amanda.ai.AIService/StreamChat": 1}, flush()); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for endpoint, want := range map[string]bool{
		"http://localhost:4318": true, "https://collector.example.org/otlp/": true,
		"localhost:4318": false, "collector": false, "ftp://collector": false, "http://": false, "http://a b": false,
		"http://collector?key=secret": false, "http://collector#x": false,
	} {
		err := tracing.Check(endpoint)
		if (err == nil) != want {
			t.Errorf("%s: got %v", endpoint, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error repeats it: %v", endpoint, err)
		}
	}
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	for list, want := range map[string]map[string]string{
		"":    {},
		"a=b": {"a": "b"},
		" authorization = Basic%20x== ,,x-scope=1": {"authorization": "Basic x==", "x-scope": "1"},
		"a":            nil,
		"=b":           nil,
		"a=%zz":        nil,
		"a=b%0d%0ac:d": nil,
	} {
		got, err := tracing.ParseHeaders(list)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%q: error %v, headers (-want +got):\n%s", list, err, diff)
		}
	}
}

// decoded is the body of r without its coding.
func decoded(t *testing.T, r *http.Request) io.Reader {
	t.Helper()
	if r.Header.Get("Content-Encoding") != "gzip" {
		return r.Body
	}
	body, err := gzip.NewReader(r.Body)
	if err != nil {
		t.Error(err)
		return http.NoBody
	}
	return body
}
