package stream

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"parley/models"
)

// mirror brings the log to what the database has. p was read from that offset
// of the text on: where the attempt is another than the log's, from the start.
func (r *reply) mirror(p models.Progress, from int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.end != nil || r.fence > 0 {
		return
	}
	if m := p.Message; r.attempt != m.Attempt {
		if r.spoken != nil && r.attempt > 0 {
			r.spoken.keep(m.SharedBytes)
		}
		r.attempt, r.shared, r.text = m.Attempt, m.SharedBytes, []byte(p.Text)
	} else if size := int64(len(r.text)); from <= size && size < from+int64(len(p.Text)) {
		r.text = append(r.text, p.Text[size-from:]...)
	}
	if p.Message.Status != "streaming" {
		e := endingOf(p.Message)
		r.end = &e
		r.letGo()
	}
	r.wakeAll()
}

// mirrorAll reads what happened to the replies that are followed here and
// written elsewhere: when it is told of something, and all of them at every
// interval, since notices get lost.
func (h *Hub) mirrorAll(ctx context.Context) {
	t := time.NewTicker(h.config.PollEvery)
	defer t.Stop()
	for {
		all := false
		select {
		case <-ctx.Done():
			return
		case <-h.stale:
		case <-t.C:
			all = true
		}
		var watched []int64
		var due []*reply
		for _, r := range h.all((*reply).elsewhere) {
			if all && h.forgotten(r) {
				continue
			}
			if r.takeStale() || all {
				due = append(due, r)
			}
			watched = append(watched, r.start.MessageID)
		}
		for some := range slices.Chunk(due, maxRead) {
			h.read(ctx, some, false)
		}
		if all {
			h.forgetEnded()
			if err := h.db.WatchReplies(ctx, watched, watching); err != nil && ctx.Err() == nil {
				h.log.Warn("replies written elsewhere are not watched, trying again", "err", err)
			}
		}
	}
}

// watching is how long a reply is watched without being asked for again.
const watching = 5 * time.Second

// watch has the writer of a reply save it often.
func (h *Hub) watch(ctx context.Context, messageID int64) {
	if err := h.db.WatchReplies(ctx, []int64{messageID}, watching); err != nil {
		return // mirrorAll tries again
	}
	h.tell(ctx, noticeWatch, messageID)
}

// takeStale reports whether the reply was said to have more, and forgets it.
func (r *reply) takeStale() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	stale := r.stale
	r.stale = false
	return stale
}

// maxRead is how many replies are read by one statement.
const maxRead = 500

// read reads what is new of replies that are written elsewhere, or the whole of
// them.
func (h *Hub) read(ctx context.Context, rs []*reply, whole bool) {
	from, attempts := make(map[int64]int64, len(rs)), make(map[int64]int, len(rs))
	for _, r := range rs {
		id := r.start.MessageID
		r.mu.Lock()
		from[id], attempts[id] = int64(len(r.text)), r.attempt
		r.mu.Unlock()
		if whole {
			from[id] = 0
		}
	}
	progress, err := h.db.RepliesProgress(ctx, from)
	if err != nil {
		if ctx.Err() == nil {
			h.log.Warn("replies written elsewhere cannot be read, trying again", "replies", len(rs), "err", err)
		}
		return
	}
	var again []*reply // another attempt is made at them
	for _, r := range rs {
		id := r.start.MessageID
		p, found := progress[id]
		switch {
		case !found:
			r.finish(h.gone(ctx, r))
			r.endSpeech(models.SpeechFailed)
			h.drop(r)
		case p.Message.Attempt != attempts[id] && from[id] > 0:
			again = append(again, r)
		default:
			r.mirror(p, from[id])
			h.mirrorVoice(ctx, r, p)
			if r.isThrough() {
				h.drop(r)
			}
		}
	}
	if again != nil {
		h.read(ctx, again, true)
	}
}

// gone is how a reply ends that there is no more: with its chat, or alone, where
// the chat has gone on from an earlier message.
func (h *Hub) gone(ctx context.Context, r *reply) ending {
	if _, err := h.db.Chat(ctx, r.start.userID, r.start.ChatID); isGone(err) {
		return ending{status: models.StatusFailed, code: codeChatDeleted}
	}
	return ending{status: models.StatusFailed, code: codeMessageDeleted}
}

// forgotten drops a reply that is written elsewhere and that nobody reads.
func (h *Hub) forgotten(r *reply) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.abandoned() || r.fence > 0 && r.end == nil || r.spoken != nil && r.spoken.speaker != nil {
		return false
	}
	delete(h.replies, r.start.MessageID)
	return true
}

// keepLease says that this replica lives, looks after the replies that the
// database has under its name, and takes over what dead replicas left.
func (h *Hub) keepLease(ctx context.Context) {
	pauses := h.pauses.Load()
	if err := h.db.RenewReplica(ctx, h.config.Replica, h.config.Lease); err != nil {
		h.renewedSince = time.Time{}
		if ctx.Err() == nil {
			h.log.Warn("the lease of this replica is not renewed, trying again", "err", err)
		}
		return
	}
	// When it was done, and not when it was asked for: a database that says nothing
	// for a while has no error to tell.
	now := time.Now()
	if h.renewedSince.IsZero() || now.Sub(h.renewed) > h.config.Lease {
		h.renewedSince = now
	}
	h.renewed = now
	if err := h.inspect(ctx, pauses != h.survived.Load()); err == nil {
		h.survived.Store(pauses)
	} else if ctx.Err() == nil {
		h.log.Warn("the running replies cannot be looked after, trying again", "err", err)
	}
	if !h.Draining() {
		h.takeOrphans(ctx)
	}
	h.keepSpeeches(ctx)
	h.shareCounts(ctx)
	h.awaitLapse(ctx)
}

// awaitLapse has keepLease called when the lease of another replica lapses before
// the next poll, which then has not been renewed, and when this replica comes to
// know the dead: the readers of what they left wait.
func (h *Hub) awaitLapse(ctx context.Context) {
	in := h.config.PollEvery
	lapse, ok, err := h.db.NextLapse(ctx, h.config.Replica)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("the leases of the other replicas are not known, trying again", "err", err)
	}
	if ok {
		in = min(in, lapse)
	}
	if sure := time.Until(h.renewedSince.Add(h.config.Lease)); sure > 0 {
		in = min(in, sure)
	}
	if in < h.config.PollEvery {
		time.AfterFunc(in+time.Millisecond, func() { signal(h.free) })
	}
}

// knowsTheDead reports whether a lease that has lapsed says that its owner is dead.
// After an outage of the database every lease has. Whoever lives renews his own
// within a lease: until then nobody is taken for dead, and not by a replica either
// whose own renewal is long ago, since what it asked after that was answered late.
func (h *Hub) knowsTheDead() bool {
	return h.renewed.Sub(h.renewedSince) >= h.config.Lease && time.Since(h.renewed) < h.config.Lease/2
}

// takeOrphans takes over the replies that nobody writes: those that were let go
// of, and, if the owners' leases can be trusted, those of dead ones.
func (h *Hub) takeOrphans(ctx context.Context) {
	orphans, err := h.db.OrphanedReplies(ctx, maxTaken)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("replies without an owner cannot be looked for, trying again", "err", err)
	}
	found, trusted := len(orphans), h.knowsTheDead()
	// Of this replica's own the lease lapsed while this was asked: it lives.
	orphans = slices.DeleteFunc(orphans, func(o models.RunningReply) bool {
		return o.Owner != "" && !trusted || o.Owner == h.config.Replica
	})
	taken, err := h.db.TakeReplies(ctx, orphans, h.config.Replica)
	if err != nil && ctx.Err() == nil {
		h.log.Warn("replies cannot be taken over, trying again", "replies", len(orphans), "err", err)
	}
	for _, t := range taken {
		if err := h.goOn(ctx, t); err != nil && ctx.Err() == nil {
			h.log.Warn("a reply cannot be taken over, trying again", "message_id", t.Message.ID, "err", err)
		}
	}
	if found < maxTaken || len(orphans) == 0 || err != nil {
		return
	}
	// There may be more, and their readers wait.
	if len(taken) > 0 {
		signal(h.free)
	} else { // another replica was faster, and is busy with these
		time.AfterFunc(rand.N(2*lostRace), func() { signal(h.free) })
	}
}

// maxTaken is how many replies a replica takes over before it renews its lease
// and looks again, so that the others get their share.
const maxTaken = 100

// lostRace is how long a replica waits, as a mean, before it looks again for the
// replies of dead ones when others have taken all that it found.
const lostRace = 20 * time.Millisecond

// inspectAll is how often all replies are compared with the database, and not
// only those that somebody wants something of.
const inspectAll = 5 * time.Second

// inspect does what others want of the replies that this replica writes. Now
// and then it compares them all with those that the database has under this
// replica's name: one that was deleted is ended; one that is not written here
// (the commit's answer got lost) is let go of, also if it is followed here.
func (h *Hub) inspect(ctx context.Context, all bool) error {
	began := time.Now()
	all = all || began.Sub(h.inspected) >= inspectAll
	before := h.all((*reply).written)
	owned, err := h.db.OwnedReplies(ctx, h.config.Replica, all)
	if err != nil {
		return err
	}
	known := make(map[int64]bool, len(owned))
	for _, o := range owned {
		known[o.MessageID] = true
		if !h.writes(o.MessageID, o.Fence) {
			if err := h.giveUp(ctx, o); err != nil {
				return err
			}
			continue
		}
		switch r := h.lookup(o.MessageID); {
		case r == nil: // it is being stored, or has ended
		case o.StopRequested:
			r.stopWriting(errStopped)
		case o.Watched:
			r.keepWatched(began)
		}
	}
	if !all {
		return nil
	}
	h.inspected = began
	for _, r := range before {
		if !known[r.start.MessageID] && !r.isFinished() {
			r.stopWriting(errDeleted) // or lost: storing its end will tell
		}
	}
	return nil
}

// giveUp lets go of a reply that this replica does not write, unless that has
// ended, or has another owner by now.
func (h *Hub) giveUp(ctx context.Context, o models.Owned) error {
	give := h.db.ReleaseReply
	if o.Fence > 1 {
		give = h.db.DisownReply // the owner before has sent text, and may have died
	}
	err := give(ctx, o.MessageID, o.Fence, h.config.Replica)
	if errors.Is(err, models.ErrNotFound) || errors.Is(err, models.ErrStaleOwner) {
		return nil
	}
	return err
}

// goOn has this replica write a reply that it has taken over.
func (h *Hub) goOn(ctx context.Context, t models.TakenReply) error {
	voice, err := h.recall(ctx, t.Progress)
	if err != nil {
		return err // inspect lets go of it
	}
	h.config.Metrics.TookOver(t.From == "")
	h.log.Info("took a reply over", "message_id", t.Message.ID, "from", t.From, "bytes", len(t.Text))
	h.write(h.begin(claim{
		start: startInfo{
			ChatID:        t.Message.ChatID,
			UserMessageID: t.Running.UserMessageID,
			MessageID:     t.Message.ID,
			Title:         t.Title,
			userID:        t.UserID,
		},
		fence: t.Running.Fence, attempt: t.Message.Attempt, shared: t.Message.SharedBytes, message: t.Asked,
		from:   &takenText{text: t.Text, clean: t.From == "", stop: t.Running.StopRequestedAt != nil},
		spoken: voice,
	}))
	return nil
}
