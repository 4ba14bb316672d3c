package handlers

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"parley/auth"
	"parley/models"
)

// signedIn makes h a handler that asks for a valid access token first.
func (s *server) signedIn(h signedIn) open { return s.knowing(s.authenticate, h) }

// signedInOrTicket makes h, which is about one message's stream, a handler that
// asks for a valid access token, or a ticket for that stream.
func (s *server) signedInOrTicket(h signedIn) open { return s.knowing(s.bearerOrTicket, h) }

// knowing makes h a handler that asks first who is calling. Where h finds
// nothing it asks whether that is because the caller's account is gone.
func (s *server) knowing(who func(*http.Request) (auth.Identity, error), h signedIn) open {
	return func(w http.ResponseWriter, r *http.Request) error {
		caller, err := who(r)
		if err != nil {
			return err
		}
		noted := s.noteUse(r.Context(), caller)
		defer noted()
		if r.ContentLength != 0 {
			r.Body = &callersBody{ReadCloser: r.Body, alive: func() error { return s.alive(r.Context(), caller) }, asked: time.Now()}
		}
		err = h(w, r, caller)
		if errors.Is(err, models.ErrNotFound) {
			if _, gone := s.user(r.Context(), caller); gone != nil {
				return gone
			}
		}
		return err
	}
}

// authenticate returns who sent r; noteUse follows. It reads no database, but while
// this replica cannot know what was revoked.
func (s *server) authenticate(r *http.Request) (auth.Identity, error) {
	token, err := bearerToken(r.Header)
	if err != nil {
		return auth.Identity{}, err
	}
	caller, err := s.tokens.VerifyAccess(token)
	if err != nil {
		return auth.Identity{}, err
	}
	if err := s.alive(r.Context(), caller); err != nil {
		return auth.Identity{}, err
	}
	infoOf(r).userID = caller.UserID
	return caller, nil
}

// alive returns nil if the caller's device session has not ended, and else
// errSignedOut. A replica that has lately not read what others have ended asks
// the database.
func (s *server) alive(ctx context.Context, caller auth.Identity) error {
	switch {
	case s.revoked.Has(caller):
		return errSignedOut
	case !s.revoked.Stale():
		return nil
	}
	err := s.db.SessionAlive(ctx, caller.SID, caller.UserID)
	if errors.Is(err, models.ErrNotFound) {
		return errSignedOut
	}
	return err
}

// A callersBody is the body of a request whose caller is known. It may take its
// time, and the caller be signed out meanwhile: then it fails, with a bodyRefused,
// before what it says is done.
type callersBody struct {
	io.ReadCloser
	alive func() error
	asked time.Time
}

func (b *callersBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil && time.Since(b.asked) < time.Second {
		return n, nil
	}
	if refused := b.alive(); refused != nil {
		return 0, bodyRefused{refused}
	}
	b.asked = time.Now()
	return n, err
}

// bodyRefused is why a callersBody is not read any further.
type bodyRefused struct{ error }

// bearerToken returns the token of the one Authorization header (RFC 6750,
// section 2.1). With no header, or for another scheme, it is errNoToken.
func bearerToken(h http.Header) (string, error) {
	values := h.Values("Authorization")
	if len(values) == 0 {
		return "", errNoToken
	}
	if len(values) > 1 {
		return "", errInvalidToken
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", errNoToken
	}
	return strings.TrimLeft(token, " "), nil
}

// noteUse writes down that the tokens of this generation have arrived: from
// then on the refresh token before them has no grace. Once is enough for each
// generation, and its failure is not the caller's trouble: the next request
// tries again. It does so beside the request, which is to wait for it at its end.
func (s *server) noteUse(ctx context.Context, caller auth.Identity) (wait func()) {
	if s.used.has(caller.SID, caller.Generation) {
		return func() {}
	}
	noted := make(chan struct{})
	go func() {
		defer close(noted)
		// The tokens have arrived also if their bearer has left meanwhile.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if err := s.db.TouchSession(ctx, caller.SID, caller.Generation, now()); err != nil {
			s.log.WarnContext(ctx, "the use of a device session was not noted", "error", err)
			return
		}
		s.used.add(caller.SID, caller.Generation)
	}()
	return func() { <-noted }
}

// now is the time as a database keeps it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// generationsKept is how many device sessions each half of generations holds:
// some 10 MiB in all.
const generationsKept = 32 << 10

// generations remembers the highest generation of each device session that is
// written down as used. It is bounded: when half of it is full the older half
// is forgotten, which costs those sessions one more write.
type generations struct {
	mu            sync.Mutex
	recent, older map[string]int64
}

func (g *generations) has(sid string, generation int64) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.recent[sid] >= generation {
		return true
	}
	if g.older[sid] < generation {
		return false
	}
	g.keep(sid, g.older[sid])
	return true
}

func (g *generations) add(sid string, generation int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keep(sid, max(generation, g.recent[sid]))
}

// keep makes sid one of the recent ones. g.mu is held.
func (g *generations) keep(sid string, generation int64) {
	if g.recent == nil || len(g.recent) >= generationsKept {
		g.recent, g.older = make(map[string]int64), g.recent
	}
	g.recent[sid] = generation
}
