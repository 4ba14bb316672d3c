package voice

import (
	"errors"
	"sync"
)

var (
	// ErrBusy means that as many do this as this process has room for.
	ErrBusy = errors.New("voice: there is no place at the moment")
	// ErrTooMany means that a user does as much of this at once as one may.
	ErrTooMany = errors.New("voice: the user does too much of this at once")
)

// A Gate bounds how much is done at once, in all and for one user. It is safe for
// concurrent use.
type Gate struct {
	all, each int

	mu sync.Mutex
	n  int
	of map[int64]int
}

// NewGate returns a Gate that lets so many in, and so many of one user.
func NewGate(all, each int) *Gate { return &Gate{all: all, each: each, of: make(map[int64]int)} }

// Enter returns nil if the user may come in, and Leave must follow; else
// ErrTooMany, or ErrBusy.
func (g *Gate) Enter(userID int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.of[userID] >= g.each:
		return ErrTooMany
	case g.n >= g.all:
		return ErrBusy
	}
	g.n++
	g.of[userID]++
	return nil
}

// Leave says that one who came in is gone.
func (g *Gate) Leave(userID int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.n--
	if g.of[userID]--; g.of[userID] == 0 {
		delete(g.of, userID)
	}
}
