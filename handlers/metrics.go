package handlers

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// scrapePath is where Prometheus asks, and whoever is not let in finds nothing.
const scrapePath = "/metrics"

// A Trace begins the span of a request with that id, and returns the context that
// has it and what ends it: with the pattern of the route, empty where there was
// none, and the status. ours says that a proxy of ours has sent the request, so
// that it may name the trace which it is part of.
type Trace func(r *http.Request, id string, ours bool) (ctx context.Context, end func(route string, status int))

// begin counts a request that has come in, and begins its span where there are
// spans. What it returns is the request's context.
func (s *server) begin(r *http.Request, info *request) context.Context {
	s.metrics.Began()
	if s.trace == nil {
		return r.Context()
	}
	ctx, end := s.trace(r, info.id, s.trusts(r.RemoteAddr))
	info.traced = end
	return ctx
}

// observe counts a request that is done, and ends its span.
func (s *server) observe(r *http.Request, status int) {
	info := infoOf(r)
	pattern := ""
	if info.route != nil {
		pattern = info.route.path
	}
	began := info.answer.at
	if began.IsZero() {
		began = time.Now()
	}
	s.metrics.Answered(pattern, r.Method, status, began.Sub(info.began))
	if info.err != nil && status != statusClientGone {
		s.metrics.Problem(problemOf(info.err).code)
	}
	if info.traced != nil {
		info.traced(pattern, status)
	}
}

// countLoginOutcome counts what came of a try to sign in.
func (s *server) countLoginOutcome(r *http.Request, err error) {
	switch {
	case err == nil:
		s.metrics.Login("ok")
	case clientGone(r, err):
		s.metrics.Login("client_gone")
	default:
		s.metrics.Login(problemOf(err).code)
	}
}

// showMetrics answers GET /metrics.
func (s *server) showMetrics(w http.ResponseWriter, r *http.Request) error {
	s.scrape.ServeHTTP(w, r)
	return nil
}

// forwarding are the header fields by which proxies tell of whom they ask for.
var forwarding = []string{
	"Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Server",
	"X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "Cf-Connecting-Ip", "Fly-Client-Ip",
}

// mayScrape reports whether r asks for the metrics and somebody on this machine
// asks: over a connection from loopback, by a name of loopback, and for nobody
// else. A proxy on this machine is none who may, whether it says that it is one
// or is known to be.
func (s *server) mayScrape(r *http.Request) bool {
	if s.scrape == nil || r.URL.Path != scrapePath || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	peer, ok := parseHop(r.RemoteAddr)
	return ok && peer.IsLoopback() && isLoopbackName(r.Host) && !s.trusts(r.RemoteAddr) &&
		!slices.ContainsFunc(forwarding, func(name string) bool { return r.Header.Values(name) != nil })
}

// isLoopbackName reports whether a Host header names loopback.
func isLoopbackName(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && addr.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// trusts reports whether the peer with that address is a proxy of ours.
func (s *server) trusts(peer string) bool {
	addr, ok := parseHop(peer)
	return ok && slices.ContainsFunc(s.proxies, func(p netip.Prefix) bool { return p.Contains(addr) })
}
