package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Replies are what the hub of the replies counts.
type Replies struct {
	tokens     prometheus.Counter
	gap        prometheus.Histogram
	firstToken prometheus.Histogram
	duration   prometheus.Histogram
	ended      *prometheus.CounterVec
	faults     *prometheus.CounterVec
	usage      *prometheus.CounterVec

	takeovers *prometheus.CounterVec
	released  prometheus.Counter
	resets    prometheus.Counter

	opened *prometheus.CounterVec
	resume *prometheus.CounterVec
	stuck  prometheus.Counter

	flush       prometheus.Histogram
	flushRows   prometheus.Counter
	flushFailed prometheus.Counter
}

// NewReplies registers its metrics; nil is for a caller whose counts nobody reads.
func NewReplies(registry prometheus.Registerer) *Replies {
	build := promauto.With(registry)
	r := &Replies{
		tokens: build.NewCounter(prometheus.CounterOpts{
			Name: "parley_reply_tokens_total",
			Help: "Pieces of replies that the AI backend sent to this replica.",
		}),
		gap: build.NewHistogram(prometheus.HistogramOpts{
			Name:    "parley_reply_token_gap_seconds",
			Help:    "Time between two pieces of one reply, as they arrive from the AI backend: its pace, and the delays of the way here.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		firstToken: build.NewHistogram(prometheus.HistogramOpts{
			Name:    "parley_reply_first_token_seconds",
			Help:    "Time from the moment when a reply is begun, before it is stored, to the first piece of it that the AI backend sends.",
			Buckets: []float64{.025, .05, .1, .25, .5, 1, 2, 4, 8, 15, 30},
		}),
		duration: build.NewHistogram(prometheus.HistogramOpts{
			Name:    "parley_reply_duration_seconds",
			Help:    "Time from the moment when a reply is begun on this replica to its end.",
			Buckets: []float64{.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640},
		}),
		ended: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_replies_ended_total",
			Help: "Replies that have ended here, by their status: complete, stopped by the user, or failed.",
		}, []string{"status"}),
		faults: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_backend_errors_total",
			Help: "Replies in which the AI backend failed, by the code that their followers were told.",
		}, []string{"code"}),
		usage: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_model_tokens_total",
			Help: "Tokens of the model that replies took, counted by the AI backend or else estimated: input is what it was asked with, output what it said.",
		}, []string{"direction"}),
		takeovers: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_reply_takeovers_total",
			Help: "Replies that this replica took over from one that let go of them in order (ending), or was silent for too long (dead).",
		}, []string{"from"}),
		released: build.NewCounter(prometheus.CounterOpts{
			Name: "parley_replies_released_total",
			Help: "Replies that were not finished when this replica ended, and were left to others.",
		}),
		resets: build.NewCounter(prometheus.CounterOpts{
			Name: "parley_reply_resets_total",
			Help: "Replies that were begun again after a takeover, so that followers may have had to forget text.",
		}),
	}
	r.addStreams(build)
	r.addFlushes(build)
	for _, status := range []string{"complete", "stopped", "failed"} {
		r.ended.WithLabelValues(status)
	}
	return r
}

func (r *Replies) addStreams(build promauto.Factory) {
	r.opened = build.NewCounterVec(prometheus.CounterOpts{
		Name: "parley_streams_opened_total",
		Help: "Streams that were opened: of one reply, or a feed of all that happens to a user.",
	}, []string{"kind"})
	r.resume = build.NewCounterVec(prometheus.CounterOpts{
		Name: "parley_stream_resumes_total",
		Help: "Those of the opened streams that went on behind an event which the client had.",
	}, []string{"kind"})
	r.stuck = build.NewCounter(prometheus.CounterOpts{
		Name: "parley_stuck_readers_total",
		Help: "Clients that were let go because they did not read.",
	})
	for _, kind := range []string{"reply", "feed"} {
		r.opened.WithLabelValues(kind)
		r.resume.WithLabelValues(kind)
	}
	for _, from := range []string{"ending", "dead"} {
		r.takeovers.WithLabelValues(from)
	}
}

func (r *Replies) addFlushes(build promauto.Factory) {
	r.flush = build.NewHistogram(prometheus.HistogramOpts{
		Name:    "parley_flush_duration_seconds",
		Help:    "Time that one statement takes which saves what is new of many replies.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
	})
	r.flushRows = build.NewCounter(prometheus.CounterOpts{
		Name: "parley_flush_rows_total",
		Help: "Pieces of replies that such statements have saved.",
	})
	r.flushFailed = build.NewCounter(prometheus.CounterOpts{
		Name: "parley_flush_failures_total",
		Help: "Such statements that failed, and others that a reply needs to go on or to end; what they were to save stays in memory and is tried again.",
	})
}

// Token says that the backend has sent a piece of a reply, and how long after the
// one before it, or for the first one how long after the reply was begun.
func (r *Replies) Token(first bool, after time.Duration) {
	r.tokens.Inc()
	if first {
		r.firstToken.Observe(after.Seconds())
	} else {
		r.gap.Observe(after.Seconds())
	}
}

// Ended says that a reply has ended on this replica, that long after it was begun,
// and what it took of the model's tokens.
func (r *Replies) Ended(status string, after time.Duration, input, output int64) {
	r.ended.WithLabelValues(status).Inc()
	r.duration.Observe(after.Seconds())
	r.usage.WithLabelValues("input").Add(float64(input))
	r.usage.WithLabelValues("output").Add(float64(output))
}

// BackendFailed says that a reply has failed because of the backend.
func (r *Replies) BackendFailed(code string) { r.faults.WithLabelValues(code).Inc() }

// TookOver says that a reply was taken over, from a replica that let go of it or
// from one that is taken for dead.
func (r *Replies) TookOver(released bool) {
	from := "dead"
	if released {
		from = "ending"
	}
	r.takeovers.WithLabelValues(from).Inc()
}

// Released says that so many replies were left to other replicas.
func (r *Replies) Released(replies int) { r.released.Add(float64(replies)) }

// Reset says that a reply was begun again.
func (r *Replies) Reset() { r.resets.Inc() }

// Opened says that a stream was opened: of one reply, or of all that happens to a
// user; and whether the client went on where it was.
func (r *Replies) Opened(feed, resumed bool) {
	kind := "reply"
	if feed {
		kind = "feed"
	}
	r.opened.WithLabelValues(kind).Inc()
	if resumed {
		r.resume.WithLabelValues(kind).Inc()
	}
}

// Stuck says that a client was let go that did not read.
func (r *Replies) Stuck() { r.stuck.Inc() }

// Flushed says that one statement has saved what was new of so many replies, or
// has failed to.
func (r *Replies) Flushed(replies int, took time.Duration, err error) {
	if err != nil {
		r.flushFailed.Inc()
		return
	}
	r.flush.Observe(took.Seconds())
	r.flushRows.Add(float64(replies))
}
