package stream

import (
	"unicode/utf8"
)

// A cursor is a place in a reply's log: what one reader has been sent of it.
// Its fields below reply are guarded by reply.mu.
type cursor struct {
	reply *reply

	attempt int   // of the text that the reader has
	at      int64 // so many bytes of it
	begun   bool  // message_start was sent, or is not to be

	heard *hearing // nil for a reader of text alone
}

// A step is what a reader is sent of a reply at once.
type step struct {
	start *startInfo // message_start, in front of all
	reset bool
	at    eventID // behind text
	text  []byte  // what is new
	whole []byte  // all of it, where end is set
	end   *ending
	voice *voiceStep // nil for a reader of text alone
}

// maxEventText bounds the text of one event in bytes, for clients that bound
// a line and so that a reader who is far behind costs a small buffer.
const maxEventText = 16 << 10

// read is next for one who does not hold reply.mu.
func (c *cursor) read() (s step, ok bool) {
	c.reply.mu.Lock()
	defer c.reply.mu.Unlock()
	return c.next()
}

// next takes what there is to send and moves the cursor. ok is false when
// there is nothing. reply.mu is held.
func (c *cursor) next() (s step, ok bool) {
	r := c.reply
	if c.heard != nil && c.heard.pending != nil {
		return *c.heard.pending, true
	}
	if !c.begun {
		c.begun, c.attempt, c.at = true, r.attempt, 0
		s.start = &r.start
	}
	if c.attempt > r.attempt && r.end == nil {
		return s, false // of an attempt that has not been read from the database yet
	}
	s.reset = c.align()
	s.text = c.take()
	s.at = eventID{attempt: c.attempt, offset: c.at}
	if c.heard != nil {
		return c.hear(s)
	}
	if r.end != nil && c.at == int64(len(r.text)) {
		s.end, s.whole = r.end, r.text
	}
	return s, s.start != nil || s.reset || len(s.text) > 0 || s.end != nil
}

// align puts the cursor into the log as it is. It reports whether the reader
// has to forget its text, which is then not what the log begins with.
func (c *cursor) align() (reset bool) {
	r := c.reply
	switch {
	case c.attempt != r.attempt:
		// What the reader has may be the beginning of this attempt's text too.
		reset = c.attempt > r.attempt || c.at > r.shared
		c.attempt = r.attempt
	case r.end != nil:
		reset = c.at > int64(len(r.text)) // an id from elsewhere that no text ever reached
	}
	if c.at < int64(len(r.text)) && !utf8.RuneStart(r.text[c.at]) {
		reset = true // nobody was sent half a character of this text
	}
	if reset {
		c.at = 0
	}
	return reset
}

// take moves the cursor over as much text as one event may hold.
func (c *cursor) take() []byte {
	text := c.reply.text
	size := int64(len(text))
	if c.at >= size {
		return nil
	}
	from, to := c.at, min(size, c.at+maxEventText)
	for to < size && !utf8.RuneStart(text[to]) {
		to--
	}
	c.at = to
	return text[from:to:to]
}

// resume puts the cursor behind an event of the reply. through is true when
// nothing comes after it. maxText is what a reply may have in bytes; taken says
// that this one, which has ended, had an owner before its last one.
func (c *cursor) resume(id eventID, maxText int, taken bool) (through bool, err error) {
	r := c.reply
	r.mu.Lock()
	defer r.mu.Unlock()
	size, running := int64(len(r.text)), r.end == nil
	// Elsewhere more may have been sent than is saved so far, and by an earlier
	// owner more than this one has caught up with, or ever will: such an id is
	// believed.
	switch {
	case id.offset > max(size, int64(maxText)):
		return false, ErrInvalidEventID
	case id.attempt > r.attempt && (!running || r.fence > 0):
		return false, ErrInvalidEventID
	case id.attempt == r.attempt && id.offset > size && (!running && !taken || r.fence == 1):
		return false, ErrInvalidEventID
	case id.attempt == r.attempt && id.offset < size && !utf8.RuneStart(r.text[id.offset]):
		return false, ErrInvalidEventID
	}
	c.begun, c.attempt, c.at = true, id.attempt, id.offset
	return c.resumeVoice(id, r.end != nil && id.attempt == r.attempt && id.offset == size)
}
