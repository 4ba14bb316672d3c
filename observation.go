package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"

	"parley/aigrpc"
	"parley/auth"
	"parley/handlers"
	"parley/metrics"
	"parley/models"
	"parley/stream"
	"parley/tracing"
)

// An observation is how an operator sees a replica from outside: what it counts,
// and the traces that it sends, if it sends any.
type observation struct {
	metrics *metrics.Set
	log     *slog.Logger

	exposed *http.Server    // the metrics, apart from all else; nil: they stand on the public port
	tracer  *tracing.Tracer // nil: nothing is traced
}

// observe begins to watch this replica and its database. The caller ends it, when
// all that is watched has ended.
func observe(ctx context.Context, cfg *Config, db *models.DB, log *slog.Logger) (*observation, error) {
	o := &observation{metrics: metrics.New(version()), log: log}
	if cfg.MetricsAddr != "" {
		if err := o.expose(ctx, cfg.MetricsAddr); err != nil {
			return nil, err
		}
	}
	if cfg.OTLPEndpoint != "" {
		headers, err := tracing.ParseHeaders(cfg.OTLPHeaders)
		if err == nil {
			o.tracer, err = tracing.Start(ctx, tracing.Config{
				Endpoint: cfg.OTLPEndpoint,
				Headers:  headers,
				Service:  cfg.OTelService,
				Version:  version(),
				Instance: rand.Text(),
				Sampler:  cfg.OTelSampler,
				Ratio:    cfg.OTelSamplerRate,
				Log:      log,
			})
		}
		if err != nil {
			return nil, errors.Join(err, o.end())
		}
		db.Watch(o.tracer.Queries(map[string]string{models.SQLite: "sqlite", models.Postgres: "postgresql"}[db.Dialect()]))
	}
	o.database(db)
	return o, nil
}

// openWatched opens the database that is set, as openDatabase does, and begins to
// watch this replica.
func openWatched(ctx context.Context, cfg *Config, log *slog.Logger) (*models.DB, *observation, error) {
	db, err := openDatabase(ctx, cfg, log)
	if err != nil {
		return nil, nil, err
	}
	watch, err := observe(ctx, cfg, db, log)
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	return db, watch, nil
}

// end stops what observe has started. Spans that are not sent yet have a moment
// for it.
func (o *observation) end() error {
	if o.tracer != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		if err := o.tracer.Close(ctx); err != nil {
			o.log.Warn("spans are lost at the end", "err", err)
		}
	}
	if o.exposed == nil {
		return nil
	}
	return o.exposed.Close()
}

// expose serves the metrics, and nothing else, on an address of their own, until
// end.
func (o *observation) expose(ctx context.Context, address string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("cannot listen; set METRICS_ADDR: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", o.metrics.Handler(o.log))
	o.exposed = &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(o.log.Handler(), slog.LevelDebug),
	}
	go o.exposed.Serve(listener) //nolint:errcheck // it returns when end closes it
	o.log.Info("metrics are exposed", "url", "http://"+listener.Addr().String()+"/metrics")
	return nil
}

// api is what the API stands on, with what watches it.
func (o *observation) api(c handlers.Config) handlers.Config {
	c.Metrics, c.Scrape, c.Trace = o.metrics.Requests, o.scrape(), o.requests()
	return c
}

// scrape is what answers /metrics on the public port, nil where the metrics have
// an address of their own.
func (o *observation) scrape() http.Handler {
	if o.exposed != nil {
		return nil
	}
	return o.metrics.Handler(o.log)
}

// requests makes the spans of HTTP requests, nil where there are none.
func (o *observation) requests() handlers.Trace {
	if o.tracer == nil {
		return nil
	}
	return o.tracer.Request
}

// calls makes the spans of calls to the AI backend, where there are any.
func (o *observation) calls() []grpc.DialOption {
	if o.tracer == nil {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(o.tracer.Calls())}
}

// carry is what a reply keeps of the request that it answers, nil where that is
// nothing.
func (o *observation) carry() func(context.Context) context.Context {
	if o.tracer == nil {
		return nil
	}
	return tracing.Carry
}

// hashers are hashers whose time is taken.
func (o *observation) hashers(hashers []auth.Hasher) []auth.Hasher {
	timed := make([]auth.Hasher, len(hashers))
	for i, hash := range hashers {
		timed[i] = func(job auth.HashJob) auth.HashResult {
			began := time.Now()
			defer func() { o.metrics.Passwords.Hashed(time.Since(began)) }()
			return hash(job)
		}
	}
	return timed
}

// replica has the state of this replica read at each scrape.
func (o *observation) replica(hub *stream.Hub, backend *aigrpc.Client, revoked *auth.Revoked, passwords *auth.Passwords) {
	gauge := func(name, help string, labels metrics.Labels, read func() float64) {
		o.metrics.Gauge(name, help, labels, read)
	}
	const streams = "Streams that are open: of one reply, or a feed of all that happens to a user."
	gauge("parley_streams_open", streams, metrics.Labels{"kind": "reply"}, func() float64 { return float64(max(0, hub.Streams()-hub.Feeds())) })
	gauge("parley_streams_open", streams, metrics.Labels{"kind": "feed"}, func() float64 { return float64(hub.Feeds()) })
	gauge("parley_replies_running", "Replies that this replica writes.", nil, func() float64 { return float64(hub.Replies()) })
	gauge("parley_replies_queued", "Requests for a reply that wait for a place among those that run.", nil, func() float64 { return float64(hub.Queued()) })
	gauge("parley_replies_limit", "Replies that may run here at once (AI_MAX_REPLIES); 0 is any number.", nil, func() float64 { return float64(hub.Places()) })
	gauge("parley_pressure_ratio", "How full this replica is, by how late it gets to what it has to do; from 1 on it takes no reply.", nil, hub.Pressure)
	gauge("parley_draining", "1 while this replica is ending, else 0.", nil, func() float64 { return truth(hub.Draining()) })
	gauge("parley_backend_down", "1 when the AI backend has failed several times in a row, until it answers, else 0.", nil,
		func() float64 { return truth(backend.Down()) })
	gauge("parley_revocations_age_seconds", "How long ago it was read what other replicas have revoked; above 2 the database is asked on each request.", nil,
		func() float64 { return revoked.Age().Seconds() })
	gauge("parley_password_hashers", "Passwords that may be hashed at once.", nil, func() float64 { return float64(passwords.Load().Hashers) })
	gauge("parley_password_hashers_busy", "Passwords that are being hashed.", nil, func() float64 { return float64(passwords.Load().Busy) })
	gauge("parley_password_queue_length", "Passwords that wait to be hashed.", nil, func() float64 { return float64(passwords.Load().Waiting) })
}

// database has the state of the database and of its pools read at each scrape.
func (o *observation) database(db *models.DB) {
	for _, pool := range db.ConnectionPools() {
		name := metrics.Labels{"pool": pool.Name}
		const connections = "Connections to the database that this process has, by what they do."
		o.metrics.Gauge("parley_database_connections", connections, metrics.Labels{"pool": pool.Name, "state": "used"},
			func() float64 { return float64(pool.Load().Used) })
		o.metrics.Gauge("parley_database_connections", connections, metrics.Labels{"pool": pool.Name, "state": "idle"},
			func() float64 { return float64(pool.Load().Idle) })
		o.metrics.Gauge("parley_database_connections_limit", "Connections to the database that this process may have.", name,
			func() float64 { return float64(pool.Load().Limit) })
		o.metrics.Counter("parley_database_waits_total", "How often somebody had to wait for a connection to the database.", name,
			func() float64 { return float64(pool.Load().Waits) })
		o.metrics.Counter("parley_database_wait_seconds_total", "How long they have waited, all together.", name,
			func() float64 { return pool.Load().WaitedInAll.Seconds() })
	}
	waiting := &reading{read: func(ctx context.Context) (float64, error) {
		n, err := db.MailsWaiting(ctx)
		return float64(n), err
	}}
	o.metrics.Gauge("parley_outbox_mails", "Mails in the outbox, which all replicas share; no number while the database does not tell.", nil, waiting.value)
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

const (
	// readingKept is for how long what the database said is said again, however
	// often it is asked.
	readingKept = 5 * time.Second
	// readingTimeout is how long a scrape waits for the database.
	readingTimeout = time.Second
)

// A reading is a number that is asked of the database now and then.
type reading struct {
	read func(context.Context) (float64, error)

	mu    sync.Mutex
	asked time.Time
	last  float64
}

// value is what the database said lately; no number where it did not.
func (r *reading) value() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.asked.IsZero() && time.Since(r.asked) < readingKept {
		return r.last
	}
	ctx, cancel := context.WithTimeout(context.Background(), readingTimeout)
	defer cancel()
	n, err := r.read(ctx)
	if err != nil {
		n = math.NaN()
	}
	r.asked, r.last = time.Now(), n
	return n
}

// checkObservation notes what is wrong with the settings of metrics and traces.
func (c *configuration) checkObservation() {
	c.checkMetricsAddr()
	// Neither the value nor what is said of it: both may hold a secret.
	if c.OTLPEndpoint != "" && tracing.Check(c.OTLPEndpoint) != nil {
		c.fault("OTEL_EXPORTER_OTLP_ENDPOINT", "is not the base URL of a collector; write one such as http://localhost:4318")
	}
	if _, err := tracing.ParseHeaders(c.OTLPHeaders); err != nil {
		c.fault("OTEL_EXPORTER_OTLP_HEADERS", "is not a list of name=value with commas between; percent-encode what is special in a value")
	}
	if !slices.Contains(tracing.Samplers, c.OTelSampler) {
		c.fault("OTEL_TRACES_SAMPLER", "%q is not known; use one of %s", c.OTelSampler, strings.Join(tracing.Samplers, ", "))
	}
	if !(c.OTelSamplerRate >= 0 && c.OTelSamplerRate <= 1) {
		c.fault("OTEL_TRACES_SAMPLER_ARG", "%v is not from 0 to 1", c.OTelSamplerRate)
	}
}

func (c *configuration) checkMetricsAddr() {
	if c.MetricsAddr == "" {
		return
	}
	host, port, err := net.SplitHostPort(c.MetricsAddr)
	n, perr := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil || perr != nil || host != "" && !isHost(host):
		c.fault("METRICS_ADDR", "%q is not an address to listen on; write one such as 127.0.0.1:9090, or :9090", c.MetricsAddr)
	case n != 0 && int(n) == c.Port && (host == "" || host == c.Host):
		c.fault("METRICS_ADDR", "%q is where all else is; give another port, or leave it empty", c.MetricsAddr)
	}
}
