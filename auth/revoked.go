package auth

import (
	"sync"
	"time"
)

// revokedLimit is how many revocations are held one by one: 64 Ki of them
// take some 10 MiB.
const revokedLimit = 64 << 10

// freshFor is within what time a revocation holds on every replica.
const freshFor = 2 * time.Second

// Revoked is the set of revocations that can still concern a valid access
// token. It is fed from what all replicas write down, and asked on every
// request. It is safe for concurrent use.
//
// Its size is bounded. When it is full of revocations that have not expired,
// it gives up telling them apart and refuses every token issued up to the
// latest of them: a flood of logouts costs every device one refresh, and lets
// no revoked token pass.
type Revoked struct {
	limit int
	now   func() time.Time

	mu       sync.RWMutex
	sessions map[string]revocation
	users    map[int64]revocation
	all      revocation
	asked    time.Time // when the latest successful reading was begun
}

type revocation struct{ at, expires time.Time }

// NewRevoked returns an empty set. Now is the clock; nil is time.Now.
func NewRevoked(now func() time.Time) *Revoked {
	if now == nil {
		now = time.Now
	}
	return &Revoked{
		limit:    revokedLimit,
		now:      now,
		sessions: make(map[string]revocation),
		users:    make(map[int64]revocation),
	}
}

// Add revokes tokens that were issued before: with a sid those of that
// session, whenever they were issued; with a userID (not 0) those of that user
// issued at or before revokedAt; with neither those of everybody issued at or
// before revokedAt. It may be forgotten after expiresAt, when the last such
// token has expired. Adding the same again changes nothing.
func (r *Revoked) Add(sid string, userID int64, revokedAt, expiresAt time.Time) {
	added := revocation{at: revokedAt, expires: expiresAt}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case sid != "":
		r.sessions[sid] = r.sessions[sid].or(added)
	case userID != 0:
		r.users[userID] = r.users[userID].or(added)
	default:
		r.all = r.all.or(added)
	}
	if len(r.sessions)+len(r.users) > r.limit {
		r.shrink()
	}
}

// Has reports whether the token behind id was revoked.
func (r *Revoked) Has(id Identity) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if _, found := r.sessions[id.SID]; found {
		return true
	}
	return r.users[id.UserID].covers(id) || r.all.covers(id)
}

// Fresh notes that all revocations are in the set that were written down by
// asked: the time at which a reading of them was begun that has been added
// whole.
func (r *Revoked) Fresh(asked time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if asked.After(r.asked) {
		r.asked = asked
	}
}

// Stale reports whether the set may lack revocations that have to hold by now:
// the latest whole reading was begun more than 2 s ago, or there was none. What
// Has denies is then to be asked elsewhere.
func (r *Revoked) Stale() bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.now().Sub(r.asked) > freshFor
}

// Age is how long ago the latest whole reading was begun; without one it is longer
// than any.
func (r *Revoked) Age() time.Duration {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.now().Sub(r.asked)
}

// shrink forgets what has expired. Where that does not free half of the room,
// it folds the rest into one revocation of everything, so that a full set is
// not swept again at each addition.
func (r *Revoked) shrink() {
	now := r.now()
	for sid, rev := range r.sessions {
		if rev.expires.Before(now) {
			delete(r.sessions, sid)
		}
	}
	for id, rev := range r.users {
		if rev.expires.Before(now) {
			delete(r.users, id)
		}
	}
	if len(r.sessions)+len(r.users) <= r.limit/2 {
		return
	}
	for _, rev := range r.sessions {
		r.all = r.all.or(rev)
	}
	for _, rev := range r.users {
		r.all = r.all.or(rev)
	}
	clear(r.sessions)
	clear(r.users)
}

// or is the revocation that covers what either covers.
func (v revocation) or(w revocation) revocation {
	if w.at.After(v.at) {
		v.at = w.at
	}
	if w.expires.After(v.expires) {
		v.expires = w.expires
	}
	return v
}

// covers reports whether the token was issued at or before the revocation.
// The zero revocation covers nothing that was ever issued.
func (v revocation) covers(id Identity) bool {
	return !id.IssuedAt.After(v.at)
}
