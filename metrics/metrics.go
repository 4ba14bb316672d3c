// Package metrics counts what happens in the program, for Prometheus to fetch.
// Each room that counts has a set of its own here, with a method for each thing
// that may happen; what can be asked at any time is read at each scrape, by
// functions that main gives.
//
// It knows Prometheus and nothing of ours.
//
// The invariant: what a label may say is fixed by the program. No id, no
// address, no path and no text of anybody gets into one, so that nothing which
// a client sends makes another time series.
package metrics

import (
	"log/slog"
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A Set is all that one process tells. Its parts are safe for concurrent use.
type Set struct {
	Requests  *Requests
	Replies   *Replies
	Passwords *Passwords
	Mails     *Mails

	registry *prometheus.Registry
}

// New returns a set of which nothing has happened yet, with what Go and the
// system tell of this process, and its version.
func New(version string) *Set {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	promauto.With(registry).NewGauge(prometheus.GaugeOpts{
		Name:        "parley_build_info",
		Help:        "Always 1; the labels say what is running.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	}).Set(1)
	return &Set{
		Requests:  NewRequests(registry),
		Replies:   NewReplies(registry),
		Passwords: NewPasswords(registry),
		Mails:     NewMails(registry),
		registry:  registry,
	}
}

// Labels tell the series of one name apart.
type Labels = prometheus.Labels

// Gauge has read called at each scrape for a value that goes up and down. The
// series of one name have the same help and the same names of labels. Read must
// be quick, and safe for concurrent use.
func (s *Set) Gauge(name, help string, labels Labels, read func() float64) {
	s.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// Counter is Gauge for a value that only goes up.
func (s *Set) Counter(name, help string, labels Labels, read func() float64) {
	s.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels}, read))
}

// scrapesAtOnce is how many scrapes are answered at the same time; others get 503.
const scrapesAtOnce = 4

// Handler answers any request with the whole set, in the text format that it asks for. What
// cannot be told is left out, and noted in the log.
func (s *Set) Handler(log *slog.Logger) http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: scrapesAtOnce,
		EnableOpenMetrics:   true,
	})
}

// Gatherer is the set as Prometheus's own tools take it.
func (s *Set) Gatherer() prometheus.Gatherer { return s.registry }
