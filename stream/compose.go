package stream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"parley/models"
)

// compose asks the backend for the answer and appends it to the log.
//
// A reply that is taken over goes on from the saved text. Its readers may have
// been sent more than that, unless the last owner let go of it in order. So
// the backend is first asked to go on from a little before the end: if it
// repeats what is saved there, it is taken to repeat also what was sent and
// not saved, and nobody notices. If it says something else, or nothing is
// saved, readers with more than the saved text begin anew, and the others go
// on.
//
// A panic on the way fails this reply, and none of the others.
func (c *composition) compose() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	from := c.from
	if from == nil {
		return c.ask("", "")
	}
	if from.clean {
		return c.ask(from.text, "")
	}
	if from.text != "" {
		known := probeStart(from.text)
		err := c.ask(from.text[:known], from.text[known:])
		if !errors.Is(err, errDiffers) {
			return err
		}
		c.extra, c.ending.usage = cmp.Or(c.ending.usage, c.hub.estimated(c.sent, 0)), nil
	}
	if err := c.restart(from.text); err != nil {
		return err
	}
	return c.ask(from.text, "")
}

const (
	// probeSize is how much of the saved text a backend is asked to repeat, in
	// bytes: half of it at the most, but not less than leastProbe.
	probeSize = 64
	// leastProbe is what tells a backend that repeats itself from one that says the
	// same word by chance. Of less it repeats all but the first character: asked with
	// nothing to go on from, it could not say that it cannot go on.
	leastProbe = 16
)

// probeStart returns where a backend is asked to go on from so that it repeats
// the end of text: a rune's first byte.
func probeStart(text string) int {
	_, first := utf8.DecodeRuneInString(text)
	at := max(first, len(text)-min(probeSize, max(len(text)/2, leastProbe)))
	for at > 0 && at < len(text) && !utf8.RuneStart(text[at]) {
		at--
	}
	return at
}

func turns(history []models.Turn) []Turn {
	ts := make([]Turn, len(history))
	for i, t := range history {
		ts[i] = Turn(t)
	}
	return ts
}

// ask calls the backend once. What it says, from behind expected, is appended
// to the log; errDiffers when it does not begin with expected.
func (c *composition) ask(continueFrom, expected string) error {
	c.prompt.ContinueFrom = continueFrom
	c.first, c.expected = true, expected
	c.sent += c.prompt.size()
	err := c.hub.backend.Reply(c.ctx, &c.prompt, c.take)
	if err == nil && c.expected != "" {
		return errDiffers
	}
	return err
}

// take is given each chunk that the backend sends.
func (c *composition) take(chunk Chunk) error {
	if c.first {
		if err := c.begun(chunk.Continued); err != nil {
			return err
		}
	}
	now := time.Now()
	if err := c.hub.sureOfItself(c.ctx, now); err != nil {
		return err
	}
	text := chunk.Text
	first := text != "" && c.spoke.Equal(c.began)
	if text != "" {
		c.hub.config.Metrics.Token(first, now.Sub(c.spoke))
		c.spoke = now
	}
	if n := min(len(text), len(c.expected)); n > 0 {
		if text[:n] != c.expected[:n] {
			return errDiffers
		}
		text, c.expected = text[n:], c.expected[n:]
	}
	if chunk.Done {
		if chunk.FinishReason != "" {
			c.ending.finishReason = strings.ToValidUTF8(chunk.FinishReason[:min(len(chunk.FinishReason), maxReason)], "")
		}
		c.ending.usage = c.hub.counted(chunk.Usage)
	}
	err := c.reply.append(c.fence, text, c.hub.config.MaxReplyBytes, now)
	if first {
		signal(c.hub.firsts)
	}
	return err
}

// maxReason bounds in bytes what a backend says of why it ended: a word, kept with
// the message and sent with it each time.
const maxReason = 64

// begun is what the first chunk brings about.
func (c *composition) begun(continued bool) error {
	if <-c.settled; c.reply == nil {
		return errReleased
	}
	c.first, c.heard = false, true
	if c.from == nil {
		c.prompt = Prompt{} // not asked again: a history may be large, and a reply takes minutes
		return nil
	}
	if c.prompt.ContinueFrom != "" && !continued {
		c.expected = ""
		return c.restart("")
	}
	return nil
}

// restart has the log go on from text as another attempt. It is stored before
// anybody is sent its ids, so that no two attempts have one number.
func (c *composition) restart(text string) error {
	if <-c.settled; c.reply == nil {
		return errReleased
	}
	r := c.reply
	r.mu.Lock()
	restart := models.Restart{
		MessageID:   r.start.MessageID,
		Fence:       c.fence,
		Attempt:     r.attempt + 1,
		SharedBytes: min(r.shared, int64(len(text))),
		Text:        text,
		Spoken:      r.spoken != nil,
	}
	if r.attempt == 1 {
		restart.SharedBytes = int64(len(text))
	}
	r.mu.Unlock()
	err := c.hub.persist(c.ctx, restart.MessageID, func(ctx context.Context) error {
		return c.hub.db.RestartReply(ctx, restart)
	})
	if errors.Is(err, errLost) {
		c.hub.lose(r)
	}
	if err != nil {
		return err
	}
	if err := r.replace(c.fence, restart.Attempt, restart.SharedBytes, text); err != nil {
		return err
	}
	c.given = len(text)
	c.hub.config.Metrics.Reset()
	return nil
}
