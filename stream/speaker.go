package stream

import (
	"context"
	"errors"

	"parley/models"
	"parley/speech"
)

const (
	// maxAhead is how many sentences are asked for beyond those that were stored.
	maxAhead = 2
	// maxAudio bounds the audio of a reply in bytes.
	maxAudio = 16 << 20
	// maxPieces is more than a reply has.
	maxPieces = 1 << 20
)

// Why a speech ends that is not whole, besides why a call to the backend does.
var (
	errTextEnded = errors.New("stream: the text ended badly")
	errVoice     = errors.New("stream: it could not be spoken")
)

// A speaker has a reply spoken on the replica that owns its speech. It reads the
// log as any follower does: its text may be written elsewhere. One goroutine runs
// it, besides those of the sentences that are being spoken.
type speaker struct {
	hub    *Hub
	reply  *reply
	fence  int64
	ctx    context.Context //nolint:containedctx // its end is the end of this very value
	cancel context.CancelCauseFunc
	more   chan struct{} // the log has grown, or has ended

	attempt int             // of the text that is spoken; 0: to be looked up
	voiced  context.Context //nolint:containedctx // of the calls for that attempt
	unvoice context.CancelFunc
	split   speech.Splitter
	heard   int64        // so much of the text went into split
	cut     int64        // and so much came out of it
	whole   bool         // all of it did
	queue   []sentence   // that came out and are not asked for
	calls   []*utterance // that are asked for, in order
}

type sentence struct {
	text string
	upto int64
}

// An utterance is what is being spoken: of the text up to there.
type utterance struct {
	upto int64
	done chan spokenAudio // of one
}

type spokenAudio struct {
	data []byte
	err  error
}

// speak has a reply spoken here that this replica owns the speech of, with that
// fence, from the beginning of its first attempt on, or from where the stored
// pieces end. h.mu is held.
func (h *Hub) speak(r *reply, fence int64, begins bool) {
	s := &speaker{hub: h, reply: r, fence: fence, more: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.voiced, s.unvoice = context.WithCancel(s.ctx)
	if h.closed {
		s.cancel(errReleased)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if begins {
		s.attempt = r.attempt
	}
	if old := r.spoken.speaker; old != nil {
		old.cancel(errLost)
	}
	r.spoken.speaker = s
	h.speakers.Add(1)
	go s.run()
}

func (s *speaker) run() {
	defer s.hub.speakers.Add(-1)
	defer s.cancel(nil)
	err := s.utter()
	s.unvoice()
	if cause := context.Cause(s.ctx); cause != nil {
		err = cause
	}
	s.close(err)
}

// utter has all of the text spoken, as it comes: nil when that is done.
func (s *speaker) utter() error {
	for {
		if err := s.listen(); err != nil {
			return err
		}
		s.ask()
		if s.whole && len(s.queue) == 0 && len(s.calls) == 0 {
			return nil
		}
		var next chan spokenAudio
		if len(s.calls) > 0 {
			next = s.calls[0].done
		}
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-s.more:
		case a := <-next:
			if err := s.deliver(a); err != nil {
				return err
			}
		}
	}
}

// listen takes what the text has grown by.
func (s *speaker) listen() error {
	r := s.reply
	r.mu.Lock()
	attempt, end := r.attempt, r.end
	var text []byte
	if size := int64(len(r.text)); attempt == s.attempt && s.heard < size {
		text = r.text[s.heard:size:size]
	}
	r.mu.Unlock()
	switch {
	case end != nil && end.status != models.StatusComplete:
		return errTextEnded
	case attempt != s.attempt:
		return s.rewind(attempt)
	}
	s.heard += int64(len(text))
	for _, sentence := range s.split.Add(string(text)) {
		s.enqueue(sentence)
	}
	if end != nil && !s.whole {
		s.whole = true
		s.enqueue(s.split.Rest())
	}
	return nil
}

func (s *speaker) enqueue(text string) {
	s.cut += int64(len(text))
	s.queue = append(s.queue, sentence{text, s.cut})
}

// rewind goes on with another attempt at the text, behind what is stored of its
// audio. Where the log has not come to what is stored, that is done later.
func (s *speaker) rewind(attempt int) error {
	s.unvoice()
	s.voiced, s.unvoice = context.WithCancel(s.ctx)
	s.attempt, s.queue, s.calls, s.whole = 0, nil, nil, false
	var (
		stored models.Speech
		pieces []models.AudioPiece
	)
	id := s.reply.start.MessageID
	err := s.hub.persist(s.ctx, id, func(ctx context.Context) (err error) {
		if stored, err = s.hub.db.Speech(ctx, id); err == nil {
			pieces, err = s.hub.db.Audio(ctx, id, 0)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case stored.Fence != s.fence || stored.State != models.SpeechRunning:
		return errLost
	case stored.Attempt != attempt:
		return nil
	}
	r := s.reply
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.attempt != attempt {
		signal(s.more)
		return nil
	}
	r.spoken.pieces = nil
	r.spoken.take(pieces, attempt)
	r.wakeAll() // and listens again
	s.attempt, s.split, s.heard = attempt, speech.Splitter{}, 0
	if n := len(r.spoken.pieces); n > 0 {
		s.heard = r.spoken.pieces[n-1].upto
	}
	s.cut = s.heard
	return nil
}

// ask has as many sentences spoken as may be at once.
func (s *speaker) ask() {
	for len(s.calls) < maxAhead && len(s.queue) > 0 {
		words, upto := s.next()
		if words == "" {
			return
		}
		u := &utterance{upto: upto, done: make(chan spokenAudio, 1)}
		s.calls = append(s.calls, u)
		voice := s.reply.spoken.voice // fixed
		ctx, said := s.voiced, Speech{Text: words, Voice: voice.Name, Speed: voice.Speed, Format: voice.Format}
		go func() {
			data, err := s.hub.synthesize(ctx, said)
			u.done <- spokenAudio{data, err}
		}()
		s.announce()
	}
}

// next takes from the queue what is said at once: a sentence, or several short
// ones that are there. Sentences without words are passed over.
func (s *speaker) next() (words string, upto int64) {
	for len(s.queue) > 0 && len(words) < shortWords {
		more := speech.Spoken(s.queue[0].text)
		if words != "" && more != "" {
			if len(words)+len(more) > 2*shortWords {
				break
			}
			words += " "
		}
		words, upto = words+more, s.queue[0].upto
		s.queue = s.queue[1:]
	}
	return words, upto
}

// announce tells the readers that the reply is being spoken.
func (s *speaker) announce() {
	s.reply.mu.Lock()
	defer s.reply.mu.Unlock()
	if !s.reply.spoken.begun {
		s.reply.spoken.begun = true
		s.reply.wakeFollowers()
	}
}

// deliver stores the next piece, and only then appends it to the log.
func (s *speaker) deliver(a spokenAudio) error {
	if err := context.Cause(s.ctx); err != nil {
		return err
	}
	upto := s.calls[0].upto
	s.calls = s.calls[1:]
	h, r := s.hub, s.reply
	if a.err != nil {
		var failed *BackendError
		code := codeInternal
		if errors.As(a.err, &failed) {
			code = failed.Code
		}
		h.log.Warn("a reply could not be spoken", "message_id", r.start.MessageID, "code", code, "err", a.err)
		return errVoice
	}
	r.mu.Lock()
	piece := models.AudioPiece{
		MessageID: r.start.MessageID, Seq: len(r.spoken.pieces) + 1, Attempt: s.attempt, Upto: upto, Data: a.data,
	}
	size, moved := r.spoken.size()+len(a.data), r.attempt != s.attempt
	r.mu.Unlock()
	switch {
	case moved:
		return nil
	case size > maxAudio:
		h.log.Warn("a reply is longer than may be spoken", "message_id", r.start.MessageID)
		return errVoice
	}
	err := h.persist(s.ctx, piece.MessageID, func(ctx context.Context) error {
		return h.db.AppendAudio(ctx, s.fence, piece)
	})
	if errors.Is(err, errLost) {
		s.attempt = 0 // or its text begins anew: to be looked up
		return s.listen()
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	if r.attempt == s.attempt {
		r.spoken.pieces = append(r.spoken.pieces, audioPiece{upto, a.data})
		r.wakeFollowers()
	}
	r.mu.Unlock()
	h.tell(s.ctx, noticeSaved, piece.MessageID)
	return nil
}

// close stores how the speech has ended, and tells its readers.
func (s *speaker) close(err error) {
	h, id := s.hub, s.reply.start.MessageID
	state := models.SpeechStopped
	switch {
	case err == nil:
		state = models.SpeechDone
	case errors.Is(err, errReleased):
		s.release()
		return
	case errors.Is(err, errLost):
		s.leave("")
		h.refresh(s.reply)
		return
	case errors.Is(err, errDeleted):
		s.leave(models.SpeechFailed)
		return
	case !errors.Is(err, errStopped) && !errors.Is(err, errTextEnded):
		state = models.SpeechFailed
	}
	err = h.persist(context.Background(), id, func(ctx context.Context) error {
		return h.db.EndSpeech(ctx, id, s.fence, state)
	})
	switch {
	case err == nil:
		s.leave(state)
		h.tell(context.Background(), noticeSaved, id)
	case errors.Is(err, errDeleted):
		s.leave(models.SpeechFailed)
	default: // it ended before, or goes on elsewhere
		s.leave("")
		h.refresh(s.reply)
	}
}

// release lets another replica have the rest spoken.
func (s *speaker) release() {
	s.leave("")
	ctx, cancel := context.WithTimeout(context.Background(), storing)
	defer cancel()
	id := s.reply.start.MessageID
	if err := s.hub.db.ReleaseSpeech(ctx, id, s.fence); err != nil {
		s.hub.log.Warn("a speech is left for its lease to lapse", "message_id", id, "err", err)
		return
	}
	s.hub.tell(ctx, noticeFree, id)
}

// leave takes the speaker out of its reply, whose speech is in that state then; "":
// as it is.
func (s *speaker) leave(state string) {
	r := s.reply
	r.mu.Lock()
	if r.spoken.speaker == s {
		r.spoken.speaker = nil
		if state != "" {
			r.spoken.state = state
		}
		r.wakeAll()
	}
	through := r.through()
	r.mu.Unlock()
	if through {
		s.hub.drop(r)
	}
}
