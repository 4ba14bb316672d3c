package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Passwords are what the hashing of passwords counts.
type Passwords struct{ took prometheus.Histogram }

// NewPasswords registers its metrics; nil is for a caller whose counts nobody reads.
func NewPasswords(registry prometheus.Registerer) *Passwords {
	return &Passwords{took: promauto.With(registry).NewHistogram(prometheus.HistogramOpts{
		Name:    "parley_password_hash_duration_seconds",
		Help:    "Time that one password takes to be hashed, once its turn has come.",
		Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5},
	})}
}

// Hashed says that a password was hashed.
func (p *Passwords) Hashed(took time.Duration) { p.took.Observe(took.Seconds()) }

// Mails are what the delivery of mail counts.
type Mails struct{ tried *prometheus.CounterVec }

// NewMails registers its metrics; nil is for a caller whose counts nobody reads.
func NewMails(registry prometheus.Registerer) *Mails {
	m := &Mails{tried: promauto.With(registry).NewCounterVec(prometheus.CounterOpts{
		Name: "parley_mails_total",
		Help: "Tries to send a mail, by what came of them: sent, put_off to be tried again, or dropped.",
	}, []string{"outcome"})}
	for _, outcome := range []string{"sent", "put_off", "dropped"} {
		m.tried.WithLabelValues(outcome)
	}
	return m
}

// Sent says that the mail server has taken a mail.
func (m *Mails) Sent() { m.tried.WithLabelValues("sent").Inc() }

// PutOff says that a mail could not be sent, and waits for another try.
func (m *Mails) PutOff() { m.tried.WithLabelValues("put_off").Inc() }

// Dropped says that a mail will never be sent.
func (m *Mails) Dropped() { m.tried.WithLabelValues("dropped").Inc() }
