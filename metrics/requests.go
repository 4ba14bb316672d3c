package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Requests are what the HTTP API counts.
type Requests struct {
	answered  *prometheus.CounterVec
	took      *prometheus.HistogramVec
	underWay  prometheus.Gauge
	problems  *prometheus.CounterVec
	logins    *prometheus.CounterVec
	throttled *prometheus.CounterVec
}

// NewRequests registers its metrics; nil is for a caller whose counts nobody reads.
func NewRequests(registry prometheus.Registerer) *Requests {
	build := promauto.With(registry)
	return &Requests{
		answered: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_http_requests_total",
			Help: "Requests that were answered, by the pattern of their route (none: there was no such route), method and status (499: the client went away).",
		}, []string{"route", "method", "status"}),
		took: build.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "parley_http_request_duration_seconds",
			Help:    "Time from the head of a request to the beginning of its answer; for a stream until it opens.",
			Buckets: []float64{.002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}, []string{"route", "method"}),
		underWay: build.NewGauge(prometheus.GaugeOpts{
			Name: "parley_http_requests_in_flight",
			Help: "Requests that handlers are working on; an open stream is none.",
		}),
		problems: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_http_problems_total",
			Help: "Requests that were refused or failed, by the code of the problem that they were answered with.",
		}, []string{"code"}),
		logins: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_logins_total",
			Help: "Tries to sign in with a password, by what came of them: ok, or the code of the problem.",
		}, []string{"outcome"}),
		throttled: build.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_throttled_total",
			Help: "Requests that were refused because there were too many of them, by the policy that RateLimit-Policy names.",
		}, []string{"policy"}),
	}
}

// Began says that a handler has got a request; Answered must follow.
func (r *Requests) Began() { r.underWay.Inc() }

// Answered says that a handler is done with a request. The answer began after that
// time; route is empty for a path that is none of the API's.
func (r *Requests) Answered(route, method string, status int, began time.Duration) {
	r.underWay.Dec()
	if route == "" {
		route = "none"
	}
	method = known(method)
	r.answered.WithLabelValues(route, method, strconv.Itoa(status)).Inc()
	r.took.WithLabelValues(route, method).Observe(began.Seconds())
}

// known is method, unless it is one that a client made up.
func known(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return method
	}
	return "other"
}

// Problem says that a request was answered with a problem of that code.
func (r *Requests) Problem(code string) { r.problems.WithLabelValues(code).Inc() }

// Login says what came of a try to sign in: ok, or the code of a problem.
func (r *Requests) Login(outcome string) { r.logins.WithLabelValues(outcome).Inc() }

// Throttled says that a request was refused under a policy.
func (r *Requests) Throttled(policy string) { r.throttled.WithLabelValues(policy).Inc() }
