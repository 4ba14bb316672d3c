package stream

import (
	"parley/models"
)

// spoken is the voice of a reply, the second half of its log: pieces of audio that
// are only appended to, and then how it ended. Each is stored before a reader is
// sent it, so that it is the same from whatever replica. All of it is guarded by
// the reply's mu.
type spoken struct {
	voice      models.Voice // fixed
	transcript string       // fixed: what the reply answers
	pieces     []audioPiece // appended to, never changed: a part of it may be read unlocked
	made       int          // how many there were of what is kept no more
	state      string       // models.SpeechRunning, until it has ended
	begun      bool         // something is being spoken
	speaker    *speaker     // nil: it is spoken by another replica, or by nobody
}

// An audioPiece is a sentence, or several, that can be played by itself.
type audioPiece struct {
	upto int64 // so much of the text was spoken with it
	data []byte
}

// running reports whether there may be more of it.
func (s *spoken) running() bool { return s.state == models.SpeechRunning }

// keep drops what was spoken of a text that only begins as the log's does.
func (s *spoken) keep(shared int64) {
	n := 0
	for n < len(s.pieces) && s.pieces[n].upto <= shared {
		n++
	}
	s.pieces = s.pieces[:n:n]
}

// take appends the stored pieces that come next, of no later attempt than that.
func (s *spoken) take(stored []models.AudioPiece, attempt int) {
	for _, p := range stored {
		if p.Seq == len(s.pieces)+1 && p.Attempt <= attempt {
			s.pieces = append(s.pieces, audioPiece{p.Upto, p.Data})
		}
	}
}

// size is how much audio there is in bytes.
func (s *spoken) size() int {
	n := 0
	for _, p := range s.pieces {
		n += len(p.data)
	}
	return n
}

// speaking reports whether there may be more of the reply's voice. r.mu is held.
func (r *reply) speaking() bool { return r.spoken != nil && r.spoken.running() }

// through reports whether nothing is to come any more. Of a text that ended badly
// nothing more is spoken. r.mu is held.
func (r *reply) through() bool {
	return r.end != nil && (!r.speaking() || r.end.status != models.StatusComplete)
}

// isThrough is through for one who does not hold r.mu.
func (r *reply) isThrough() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.through()
}

// elsewhere reports whether another replica has something of the reply in hand.
func (r *reply) elsewhere() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fence == 0 || r.speaking() && r.spoken.speaker == nil
}

// sounds reports whether two logs that have ended have the same voice.
func (r *reply) sounds(as *reply) bool {
	if r.spoken == nil || as.spoken == nil {
		return r.spoken == as.spoken
	}
	return r.spoken.state == as.spoken.state && len(r.spoken.pieces) == len(as.spoken.pieces)
}

// spokenBy is the voice of a reply that begins, nil for text alone.
func spokenBy(voice *models.Voice, ex models.Exchange) *spoken {
	if voice == nil {
		return nil
	}
	return &spoken{voice: *voice, transcript: ex.User.Content, state: models.SpeechRunning}
}

// stop ends what this replica makes of the reply, for that reason. It reports
// whether that is all of it.
func (r *reply) stop(cause error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cancel != nil {
		r.cancel(cause)
	}
	if r.spoken == nil {
		return r.cancel != nil
	}
	here := r.spoken.speaker != nil
	if here {
		r.spoken.speaker.cancel(cause)
	}
	return r.cancel != nil && (here || !r.spoken.running())
}

// endSpeech ends the voice in that state, if it has not ended.
func (r *reply) endSpeech(state string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.speaking() {
		r.spoken.state = state
		r.wakeAll()
	}
}

// A hearing is how far a reader is with the voice of a reply. It is guarded by the
// reply's mu.
type hearing struct {
	seq     int   // so many pieces were sent
	whole   bool  // the last event repeats all audio
	hinted  bool  // that it is being spoken was said
	ended   bool  // the text's ending was sent
	pending *step // an event of which a part was sent
}

// Which event a step of a spoken reply ends with.
const (
	tailNone   = iota
	tailEnding // of the text
	tailAudio  // a piece
	tailLast   // of all
)

// A voiceStep is the part of a step that a spoken reply has besides.
type voiceStep struct {
	transcript string // with start
	hint       bool   // it is being spoken
	tail       int
	audio      []audioPiece // of tailAudio the piece, of tailLast what is repeated
	format     string
	state      string // with tailLast
	seq        int    // likewise, of the last piece there is
}

// hear adds to a step what there is of the voice, and at its end one event that
// may be large. Text goes first; a piece of audio never comes before its text.
// reply.mu is held.
func (c *cursor) hear(s step) (_ step, ok bool) {
	r, v, h := c.reply, c.reply.spoken, c.heard
	if s.reset {
		h.seq, h.hinted = 0, false
	}
	s.voice = &voiceStep{format: v.voice.Format}
	if s.start != nil {
		s.voice.transcript = v.transcript
	}
	s.at.seq = h.seq
	s.voice.tail = c.tail()
	switch s.voice.tail {
	case tailEnding:
		s.end, s.whole = r.end, r.text
	case tailAudio:
		s.voice.audio = v.pieces[h.seq : h.seq+1]
	case tailLast:
		s.voice.state, s.voice.seq = v.state, len(v.pieces)
		if h.whole {
			s.voice.audio = append([]audioPiece{}, v.pieces...) // of none too
		}
	}
	if !h.hinted && (v.begun || s.voice.tail == tailAudio) {
		h.hinted, s.voice.hint = true, true
	}
	if s.voice.tail != tailNone {
		again := step{at: s.at, whole: s.whole, end: s.end, voice: new(*s.voice)}
		again.voice.hint = false
		h.pending = &again
	}
	return s, s.start != nil || s.reset || len(s.text) > 0 || s.voice.hint || s.voice.tail != tailNone
}

// tail is the event that is due behind the text. reply.mu is held.
func (c *cursor) tail() int {
	r, v, h := c.reply, c.reply.spoken, c.heard
	whole := r.end != nil && c.at == int64(len(r.text))
	well := whole && r.end.status == models.StatusComplete
	switch {
	case well && !h.ended:
		return tailEnding
	case h.seq < len(v.pieces) && (whole || v.pieces[h.seq].upto <= c.at):
		return tailAudio
	case whole && !well:
		return tailEnding
	case well && !v.running():
		return tailLast
	}
	return tailNone
}

// heardOut moves the cursor behind the event that a step ended with. It reports
// whether that was the last one.
func (c *cursor) heardOut(v *voiceStep) (last bool) {
	c.reply.mu.Lock()
	defer c.reply.mu.Unlock()
	h := c.heard
	h.pending = nil
	switch v.tail {
	case tailAudio:
		h.seq++
	case tailEnding:
		h.ended = true
		return c.reply.end.status != models.StatusComplete
	}
	return v.tail == tailLast
}

// resumeVoice is resume of the voice. reply.mu is held.
func (c *cursor) resumeVoice(id eventID, textThrough bool) (through bool, err error) {
	r, v := c.reply, c.reply.spoken
	switch {
	case v == nil:
		if id.seq > 0 {
			return false, ErrInvalidEventID
		}
		return textThrough, nil
	case v.state == models.SpeechExpired:
		if id.seq > v.made+1 {
			return false, ErrInvalidEventID
		}
		return textThrough, nil
	case id.seq > maxPieces:
		return false, ErrInvalidEventID
	// As of text: more may have been sent elsewhere than is known here so far.
	case id.attempt == r.attempt && !v.running() && id.seq > len(v.pieces)+1:
		return false, ErrInvalidEventID
	}
	if c.heard != nil {
		c.heard.seq, c.heard.hinted = id.seq, id.seq > 0
	}
	if textThrough && r.end.status == models.StatusComplete {
		return !v.running() && id.seq == len(v.pieces)+1, nil
	}
	return textThrough, nil
}
