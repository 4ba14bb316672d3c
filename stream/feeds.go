package stream

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"parley/models"
)

// feeds are the open ones, by user.
type feeds struct {
	mu sync.Mutex
	of map[int64]map[*feed]struct{}
}

func (fs *feeds) add(f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.of[f.viewer.UserID] == nil {
		fs.of[f.viewer.UserID] = make(map[*feed]struct{})
	}
	fs.of[f.viewer.UserID][f] = struct{}{}
}

func (fs *feeds) remove(f *feed) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	delete(fs.of[f.viewer.UserID], f)
	if len(fs.of[f.viewer.UserID]) == 0 {
		delete(fs.of, f.viewer.UserID)
	}
}

// users returns those who have a feed open.
func (fs *feeds) users() []int64 {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return slices.AppendSeq(make([]int64, 0, len(fs.of)), maps.Keys(fs.of))
}

// each calls do for the feeds of one user, or of all where userID is 0.
func (fs *feeds) each(userID int64, do func(*feed)) {
	fs.mu.Lock()
	var some []*feed
	for id, of := range fs.of {
		if userID != 0 && id != userID {
			continue
		}
		for f := range of {
			some = append(some, f)
		}
	}
	fs.mu.Unlock()
	for _, f := range some {
		do(f)
	}
}

// Changed says that something of the user's was stored: all of the user's feeds
// are told, on every replica.
func (h *Hub) Changed(ctx context.Context, userID int64) {
	h.changedHere(userID)
	h.tell(ctx, noticeUser, userID)
}

// changedHere tells the feeds of this replica.
func (h *Hub) changedHere(userID int64) {
	h.feeds.each(userID, func(f *feed) { f.wake(true) })
}

// pollFeeds looks for what was stored and not told, and has the replicas where
// things are stored tell it.
func (h *Hub) pollFeeds(ctx context.Context) {
	users := h.feeds.users()
	if len(users) == 0 {
		return
	}
	latest, err := h.db.LatestEvents(ctx, users)
	if err == nil && time.Since(h.feedsKept) > watching/3 {
		h.feedsKept = time.Now()
		err = h.db.FollowUsers(ctx, users, watching)
	}
	if err != nil {
		if ctx.Err() == nil {
			h.log.Warn("the users' events cannot be looked for, trying again", "err", err)
		}
		return
	}
	h.feeds.each(0, func(f *feed) {
		f.mu.Lock()
		behind := f.seen < latest[f.viewer.UserID]
		f.mu.Unlock()
		if behind {
			f.wake(true)
		}
	})
}

// isGone says that a reply is not there any more, or not the user's.
func isGone(err error) bool {
	return errors.Is(err, models.ErrNotFound) || errors.Is(err, models.ErrForbidden)
}
