// Package handlers is Parley's HTTP API: it reads a request, calls auth,
// models or stream, and writes the answer. It never knows how a row is stored,
// how a token is made or who the AI service is.
//
// The invariant: whatever a client sends gets the contract's answer. A handler
// returns its error; the adapter turns it into one problem document and one
// log line, and errors.go alone says which status an error has.
package handlers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"parley/auth"
	"parley/metrics"
	"parley/models"
	"parley/stream"
	"parley/voice"
)

// Config is what the API stands on. All of it is asked for, but for the lists and
// what has something else in brackets.
type Config struct {
	DB        *models.DB
	Tokens    *auth.Tokens
	Passwords *auth.Passwords
	Revoked   *auth.Revoked
	Hub       *stream.Hub
	Voice     *voice.Recordings // nil: nobody here hears or speaks

	// Ready tells what /readyz answers. It is called for each request there.
	Ready func(context.Context) []Check

	CORSOrigins    []string       // empty: no other origin at all
	TrustedProxies []netip.Prefix // networks whose X-Forwarded-For counts

	Limits    Limits
	PublicURL string // where browsers reach the service; https makes its cookie one
	NoConsole bool   // nobody gets the console; / is a health check to browsers too

	Version   string
	AccessTTL time.Duration // of access tokens: how long a revocation must hold
	Log       *slog.Logger

	Metrics *metrics.Requests // what is counted [nobody reads it]
	Scrape  http.Handler      // answers /metrics to callers on this machine [nothing is there]
	Trace   Trace             // makes a span of each request [none is made]

	// RefusalTime is what a login with a wrong password and a request for a
	// reset take at the least. 0 is half a second: longer than any hash that
	// is stored takes, so that none tells that there is an account.
	RefusalTime time.Duration
}

// Limits are how often things may happen, and how much, counted in the database
// over all replicas. A zero limit is none.
type Limits struct {
	LoginAccount        auth.Limit // wrong passwords for one account, from anywhere
	LoginAccountNetwork auth.Limit // for one account, from one network or one known device
	LoginNetwork        auth.Limit // for any account, from one network
	Signups             auth.Limit // from one network
	ResetMails          auth.Limit // to one address
	ResetRequests       auth.Limit // from one network
	Messages            auth.Limit // of one user: sent, edited, regenerated
	DailyTokens         int64      // of one user in a day (UTC), as the Hub has it
}

type server struct {
	db        *models.DB
	tokens    *auth.Tokens
	passwords *auth.Passwords
	revoked   *auth.Revoked
	hub       *stream.Hub
	voice     *voice.Recordings
	speeches  *voice.Gate
	ready     func(context.Context) []Check
	proxies   []netip.Prefix
	limits    Limits
	policies  map[policy]string
	publicURL string
	noConsole bool
	version   string
	accessTTL time.Duration
	log       *slog.Logger
	metrics   *metrics.Requests
	scrape    http.Handler
	trace     Trace

	refusalTime time.Duration

	used   generations
	routes []route
	chain  http.Handler
}

// New returns the whole API as one handler. It starts nothing and keeps no
// goroutine.
func New(c Config) http.Handler {
	s := &server{
		db:        c.DB,
		tokens:    c.Tokens,
		passwords: c.Passwords,
		revoked:   c.Revoked,
		hub:       c.Hub,
		voice:     c.Voice,
		speeches:  voice.NewGate(maxSpeeches, maxSpeechesUser),
		ready:     c.Ready,
		proxies:   c.TrustedProxies,
		limits:    c.Limits,
		policies:  c.Limits.policies(),
		publicURL: c.PublicURL,
		noConsole: c.NoConsole,
		version:   c.Version,
		accessTTL: c.AccessTTL,
		log:       c.Log,
		metrics:   c.Metrics,
		scrape:    c.Scrape,
		trace:     c.Trace,

		refusalTime: c.RefusalTime,
	}
	if s.metrics == nil {
		s.metrics = metrics.NewRequests(nil)
	}
	if s.refusalTime == 0 {
		s.refusalTime = 500 * time.Millisecond
	}
	s.routes = s.table()
	s.chain = crossOrigin(c.CORSOrigins, s.router())
	return s
}

// ServeHTTP answers r and writes its line in the access log.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a := &answer{ResponseWriter: w}
	info := &request{
		id:     requestID(r.Header),
		client: clientAddr(r.RemoteAddr, r.Header.Values("X-Forwarded-For"), s.proxies),
		began:  time.Now(),
		answer: a,
	}
	h := a.Header()
	h.Set("X-Request-Id", info.id)
	s.protect(h)
	if r.ContentLength != 0 {
		// net/http takes the deadline away at the end of the body. What is no
		// connection (a recorder in a test) has none.
		http.NewResponseController(w).SetReadDeadline(info.began.Add(bodyTimeout)) //nolint:errcheck // see above
	}
	r = r.WithContext(context.WithValue(s.begin(r, info), requestKey{}, info))

	defer func() {
		p := recover()
		err, _ := p.(error)
		abort := errors.Is(err, http.ErrAbortHandler)
		if p != nil && !abort {
			// Half an answer must not look like a whole one.
			abort = a.status != 0
			info.stack = debug.Stack()
			s.fail(a, r, fmt.Errorf("panic: %v", p))
		}
		s.logAccess(r, outcome(r))
		s.observe(r, outcome(r))
		a.end()
		if abort {
			panic(http.ErrAbortHandler)
		}
	}()
	s.chain.ServeHTTP(a, r)
}
