package stream

import (
	"context"
	"sync"
	"time"
	"unicode/utf8"
)

// A reply is the log of one answer: text that only grows, and then an ending.
// On the replica that writes it generate appends; elsewhere mirror does, with
// what it reads from the database. All fields below mu are guarded by it.
type reply struct {
	start startInfo // fixed

	mu        sync.Mutex
	attempt   int    // whose text this is: the first part of an event's id
	shared    int64  // ids of earlier attempts up to here hold for this text too
	text      []byte // appended to, never changed: a part of it may be read unlocked
	end       *ending
	ending    []byte // the event that tells end, once somebody needs it
	followers []*follower
	feeds     map[*feed]struct{} // nil until there is one
	awaiting  int                // callers that hold it
	spoken    *spoken            // nil: text alone
	stale     bool               // written elsewhere, and there is more of it
	finished  bool               // the ending is being stored: the saver keeps out
	done      chan struct{}      // closed with end, or when this replica lets go of the reply

	// The writing side, where this replica has it.
	fence   int       // of ownership: every write names it; 0 elsewhere
	saved   int64     // bytes of text that the database has
	savedAt time.Time // when the text was last saved

	appendedAt time.Time               // when text was last appended
	watched    time.Time               // until then somebody follows elsewhere: save often
	cancel     context.CancelCauseFunc // ends the backend's call
}

// startInfo is what message_start says.
type startInfo struct {
	ChatID        int64
	UserMessageID int64
	MessageID     int64
	Title         string

	userID int64
}

func newReply(start startInfo, attempt int, text string) *reply {
	return &reply{
		start:   start,
		attempt: attempt,
		text:    []byte(text),
		done:    make(chan struct{}),
	}
}

// append adds text that came now to the log, up to limit bytes of it in all,
// and sets those who wait for it going. errLost for an owner that is none any more; errTooLong
// when there was no room for all of the text.
func (r *reply) append(fence int, text string, limit int, now time.Time) error {
	direct, err := r.extend(fence, text, limit, now)
	if direct != nil {
		direct.sendNow()
	}
	return err
}

func (r *reply) extend(fence int, text string, limit int, now time.Time) (direct *follower, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fence != fence {
		return nil, errLost
	}
	room := limit - len(r.text)
	whole := len(text) <= room
	if !whole {
		room = max(room, 0)
		for room > 0 && !utf8.RuneStart(text[room]) {
			room--
		}
		text = text[:room]
	}
	if text != "" {
		r.text = append(r.text, text...)
		direct = r.wakeAllButOne(now)
	}
	if !whole {
		return direct, errTooLong
	}
	return direct, nil
}

// flood is the time between two pieces of text below which they come faster
// than writing each is worth: a goroutine that is started for the first finds
// those that came meanwhile.
const flood = 2 * time.Millisecond

// wakeAllButOne is wakeAll, but for a reader that the caller may serve itself
// once it has let go of r.mu: the only one, of text that comes at a pace.
func (r *reply) wakeAllButOne(now time.Time) (direct *follower) {
	paced := now.Sub(r.appendedAt) >= flood
	r.appendedAt = now
	if paced && len(r.followers) == 1 {
		if f := r.followers[0]; !f.running && !f.left && f.conn.raw != nil {
			f.running = true
			direct = f
		}
	}
	r.wakeAll()
	return direct
}

// replace begins another attempt's log with a text that is saved. Its first
// shared bytes are what they were; a follower that was sent more is told to
// forget it.
func (r *reply) replace(fence, attempt int, shared int64, text string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fence != fence {
		return errLost
	}
	r.attempt, r.shared = attempt, shared
	if r.spoken != nil {
		r.spoken.keep(shared)
	}
	r.text = []byte(text) // a fresh array: readers may hold parts of the old one
	r.saved = int64(len(text))
	r.wakeAll()
	return nil
}

// finish ends the log. A second ending is ignored.
func (r *reply) finish(e ending) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil {
		return
	}
	r.end = &e
	r.letGo()
	r.wakeAll()
}

// letGo releases those who Await the reply. r.mu is held.
func (r *reply) letGo() {
	select {
	case <-r.done:
	default:
		close(r.done)
	}
}

// wakeAll sets every follower going that has caught up. r.mu is held.
func (r *reply) wakeAll() {
	r.wakeFollowers()
	for f := range r.feeds {
		f.wake(false)
	}
	if r.spoken != nil && r.spoken.speaker != nil {
		signal(r.spoken.speaker.more)
	}
}

// wakeFollowers is wakeAll of those who hear a reply too. r.mu is held.
func (r *reply) wakeFollowers() {
	for _, f := range r.followers {
		f.wake()
	}
}

// abandoned reports whether nobody reads the reply. r.mu is held.
func (r *reply) abandoned() bool { return len(r.followers) == 0 && r.awaiting == 0 }

// written reports whether this replica writes the reply.
func (r *reply) written() bool { return r.writer() > 0 }

// writer is the fence of this replica as the reply's owner; 0: it is none.
func (r *reply) writer() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence
}

// writes reports whether this replica is to save the reply's text as that
// owner: it still writes it, and its ending is not being stored.
func (r *reply) writes(fence int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence == fence && !r.finished
}

// stopWriting ends the call to the backend, for that reason, if it is this replica
// that makes it.
func (r *reply) stopWriting(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel(cause)
	}
}

// ended reports whether the log has its ending.
func (r *reply) ended() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end != nil
}
