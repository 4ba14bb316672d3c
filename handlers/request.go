package handlers

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/julienschmidt/httprouter"

	"parley/models"
)

// A request is what is known about one request besides what it says: for the
// log, and for what the handlers of its route need.
type request struct {
	id     string
	client netip.Addr
	began  time.Time
	answer *answer

	route  *route // nil: no route was found
	params httprouter.Params
	userID int64 // of the caller, once the token is verified

	traced func(route string, status int) // ends the span; nil: there is none

	err   error // what the handler returned
	stack []byte
}

type requestKey struct{}

// infoOf returns what is known about r. Every request that came in through
// ServeHTTP has it.
func infoOf(r *http.Request) *request {
	return r.Context().Value(requestKey{}).(*request)
}

// ip is the address of the client as it is stored: empty where there is none.
func (info *request) ip() string {
	if !info.client.IsValid() {
		return ""
	}
	return info.client.String()
}

// requestID returns the caller's X-Request-Id if it can be used, or a new one.
func requestID(h http.Header) string {
	if ids := h.Values("X-Request-Id"); len(ids) == 1 && validRequestID(ids[0]) {
		return ids[0]
	}
	return rand.Text()
}

func validRequestID(id string) bool {
	for _, c := range []byte(id) {
		letter := 'a' <= c|0x20 && c|0x20 <= 'z'
		digit := '0' <= c && c <= '9'
		if !letter && !digit && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return 1 <= len(id) && len(id) <= 128
}

// pathID returns the id in the path of r. What is no positive decimal number
// names nothing: models.ErrNotFound.
func pathID(r *http.Request) (int64, error) {
	s := infoOf(r).params.ByName("id")
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || id < 1 || strconv.FormatInt(id, 10) != s {
		return 0, models.ErrNotFound
	}
	return id, nil
}

// parameters reads the query of r. Nothing of one that cannot be read as a whole
// counts: net/url leaves such parts out, and who asked for something would be
// answered as if it had not been asked for.
func parameters(r *http.Request) (url.Values, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid("invalid_parameter", "query", "In a query, % and ; that stand for themselves are written %25 and %3B.")
	}
	return q, nil
}

// The sizes of a page of a list.
const (
	defaultLimit = 100
	maxLimit     = 200
)

// listed reads the query of a list.
func listed(r *http.Request) (url.Values, models.Page, error) {
	q, err := parameters(r)
	if err != nil {
		return nil, models.Page{}, err
	}
	p, err := page(q)
	return q, p, err
}

// page reads ?limit= and ?cursor=.
func page(q url.Values) (models.Page, error) {
	p := models.Page{Limit: defaultLimit, Cursor: q.Get("cursor")}
	if !q.Has("limit") {
		return p, nil
	}
	n, err := strconv.Atoi(q.Get("limit"))
	if err != nil || n < 1 || n > maxLimit {
		return p, invalid("invalid_parameter", "limit", fmt.Sprintf("limit must be a number from 1 to %d.", maxLimit))
	}
	p.Limit = n
	return p, nil
}

// maxSearched is the longest text that is searched for, in characters.
const maxSearched = 200

// searched reads ?q=, without the white space around it: "" asks for no search.
func searched(q url.Values) (string, error) {
	text := strings.TrimSpace(q.Get("q"))
	switch {
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return "", invalid("invalid_parameter", "q", "q must be a text in UTF-8.")
	case utf8.RuneCountInString(text) > maxSearched:
		return "", invalid("invalid_parameter", "q", fmt.Sprintf("q may have %d characters at most.", maxSearched))
	}
	return text, nil
}

// An answer is the ResponseWriter of one request that knows its status.
type answer struct {
	http.ResponseWriter
	status       int         // 0: nothing was sent
	at           time.Time   // when that began
	ownDeadlines atomic.Bool // the handler's, which may set them from two goroutines
	hijacked     bool
}

func (a *answer) WriteHeader(status int) {
	if a.status == 0 && status >= 200 {
		a.status, a.at = status, time.Now()
	}
	a.ResponseWriter.WriteHeader(status)
}

// Hijack hands the connection over to a stream, which answers 200 by itself.
func (a *answer) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err == nil {
		a.status, a.at, a.hijacked = http.StatusOK, time.Now(), true
	}
	return conn, rw, err
}

// Unwrap is for http.ResponseController.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// statusClientGone is what the log calls a request whose client went away
// before it was answered.
const statusClientGone = 499

// outcome is the status that r was answered with, as it is logged and counted.
func outcome(r *http.Request) int {
	info := infoOf(r)
	switch {
	case clientGone(r, info.err):
		return statusClientGone
	case info.answer.status == 0:
		return http.StatusOK
	}
	return info.answer.status
}

// logAccess writes the one line that each request leaves. It names the route
// by its pattern: paths and queries may hold tickets and tokens.
func (s *server) logAccess(r *http.Request, status int) {
	info := infoOf(r)
	level := slog.LevelInfo
	attrs := []slog.Attr{slog.String("method", r.Method)}
	if info.route != nil {
		attrs = append(attrs, slog.String("route", info.route.path))
		if info.route.quiet {
			level = slog.LevelDebug
		}
	}
	if status == statusClientGone {
		level = slog.LevelDebug
	}
	attrs = append(attrs,
		slog.Int("status", status),
		slog.Float64("duration_ms", float64(time.Since(info.began).Microseconds())/1000),
		slog.String("request_id", info.id),
		slog.String("client", info.client.String()),
	)
	if info.userID != 0 {
		attrs = append(attrs, slog.Int64("user_id", info.userID))
	}
	if info.err != nil && status != statusClientGone {
		p := problemOf(info.err)
		attrs = append(attrs, slog.String("code", p.code))
		if p.status >= http.StatusInternalServerError {
			level = slog.LevelError
			if p.foreseen {
				level = slog.LevelWarn
			}
			attrs = append(attrs, slog.String("error", info.err.Error()))
		}
	}
	if info.stack != nil {
		attrs = append(attrs, slog.String("stack", string(info.stack)))
	}
	s.log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", attrs...)
}
