package main

import (
	"container/list"
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"parley/handlers"
)

// spareConnections are those above the limit of which the health checks are
// answered, so that nobody restarts a replica that is only full, and all else is
// told to try again.
const spareConnections = 32

// A gate is a listener that bounds the connections that are open at a time,
// streams among them. Where there is no place for one that comes, the one that
// has longest been without a request gives up its own; where all have requests,
// the newcomer gets a spare place; where those are taken, it is closed.
type gate struct {
	*net.TCPListener
	log *slog.Logger

	mu      sync.Mutex
	places  pool
	spare   pool
	refused int       // connections that were closed since that was told
	told    time.Time // when it was last told that the gate is full
}

// A pool is places for connections.
type pool struct {
	most    int // 0: any number
	open    int
	resting list.List // of *visitor: those without a request, longest first
}

// A visitor is a connection that has a place.
type visitor struct {
	*net.TCPConn
	gate *gate
	pool *pool         // nil: it has given its place up
	rest *list.Element // in pool.resting; nil: it has a request
}

// newGate returns a gate for most connections, or for any number where that is
// 0.
func newGate(l *net.TCPListener, most int, log *slog.Logger) *gate {
	return &gate{TCPListener: l, log: log, places: pool{most: most}, spare: pool{most: spareConnections}}
}

// Accept waits for the next connection that gets a place.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if v := g.admit(conn); v != nil {
			return v, nil
		}
		conn.Close() //nolint:errcheck // nothing was said on it
	}
}

// admit gives conn a place, or returns nil where there is none.
func (g *gate) admit(conn *net.TCPConn) *visitor {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range []*pool{&g.places, &g.spare} {
		if p.most > 0 && p.open >= p.most {
			longest := p.resting.Front()
			if longest == nil {
				continue
			}
			resting := longest.Value.(*visitor) //nolint:forcetypeassert // nothing else is put
			g.leave(resting)
			resting.TCPConn.Close() //nolint:errcheck // whoever serves it notices, and is done
		}
		v := &visitor{TCPConn: conn, gate: g, pool: p}
		p.open++
		v.rest = p.resting.PushBack(v)
		if p == &g.spare {
			g.tell()
		}
		return v
	}
	g.refused++
	g.tell()
	return nil
}

// tell says that the gate is full, now and then.
func (g *gate) tell() {
	if time.Since(g.told) < time.Minute {
		return
	}
	g.log.Warn("there are as many connections as MAX_CONNECTIONS allows, and all have requests",
		"connections", g.places.open, "refused", g.refused)
	g.told, g.refused = time.Now(), 0
}

// leave gives up the place of v. g.mu is held.
func (g *gate) leave(v *visitor) {
	if v.pool == nil {
		return
	}
	if v.rest != nil {
		v.pool.resting.Remove(v.rest)
	}
	v.pool.open--
	v.pool, v.rest = nil, nil
}

// note is an http.Server's ConnState.
func (g *gate) note(conn net.Conn, state http.ConnState) {
	v := visitorOf(conn)
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case v.pool == nil:
	case state == http.StateIdle && v.rest == nil:
		v.rest = v.pool.resting.PushBack(v)
	case (state == http.StateActive || state == http.StateHijacked) && v.rest != nil:
		v.pool.resting.Remove(v.rest)
		v.rest = nil
	}
}

// mark is an http.Server's ConnContext.
func (g *gate) mark(ctx context.Context, conn net.Conn) context.Context {
	v := visitorOf(conn)
	g.mu.Lock()
	defer g.mu.Unlock()
	if v.pool == &g.spare {
		return handlers.WithoutPlace(ctx)
	}
	return ctx
}

// visitorOf is the visitor that speaks on conn, by TLS or not.
func visitorOf(conn net.Conn) *visitor {
	if secured, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = secured.NetConn()
	}
	return conn.(*visitor) //nolint:forcetypeassert // Accept returns nothing else
}

// Close gives up the place, and closes the connection.
func (v *visitor) Close() error {
	v.gate.mu.Lock()
	v.gate.leave(v)
	v.gate.mu.Unlock()
	return v.TCPConn.Close()
}
