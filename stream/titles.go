package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode"
	"unicode/utf8"

	"parley/models"
)

const (
	// titling is how long the backend may take for a title.
	titling = 20 * time.Second
	// maxTitles is how many are made at once. A chat beyond that keeps its own:
	// the backend is there for replies.
	maxTitles = 16
	// maxExcerpt is how much a title is made from, in bytes of the message and
	// of the answer each, and maxAnswer how much is read of what the backend
	// says to that.
	maxExcerpt = 1000
	maxAnswer  = 1000
)

// titles are those that are being made, until end.
type titles struct {
	ctx     context.Context //nolint:containedctx // its end is that of all of them
	end     context.CancelFunc
	running atomic.Int64
}

func newTitles() *titles {
	t := new(titles)
	t.ctx, t.end = context.WithCancel(context.Background())
	return t
}

// entitle has a better title made for a chat whose title is its user's words,
// those of the message that was just answered. The reply does not wait for it.
func (h *Hub) entitle(start startInfo, message, answer string) {
	if !h.config.Titles || start.Title != models.TitleFrom(message) {
		return
	}
	if h.titles.running.Add(1) > maxTitles || h.Draining() {
		h.titles.running.Add(-1)
		return
	}
	go func() {
		defer h.titles.running.Add(-1)
		if err := h.makeTitle(start, message, answer); err != nil {
			h.log.Debug("a chat keeps its title", "chat_id", start.ChatID, "err", err)
		}
	}()
}

// makeTitle asks for a title and stores it, with what that has cost.
func (h *Hub) makeTitle(start startInfo, message, answer string) error {
	ctx, cancel := context.WithTimeout(h.titles.ctx, titling)
	defer cancel()
	said, used, err := h.askTitle(ctx, &Prompt{
		UserID: start.userID, ChatID: start.ChatID, Message: titlePrompt(message, answer), Model: h.config.Model,
	})
	if err != nil && said == "" {
		return err
	}
	made := models.MadeTitle{
		UserID: start.userID, ChatID: start.ChatID, MessageID: start.MessageID, Former: start.Title, Usage: *used,
	}
	if title := cleanTitle(said); err == nil && title != start.Title {
		made.Title = title
	}
	// Stored also by a replica that is about to end: it was paid for.
	ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), storing)
	defer cancel()
	set, serr := h.db.SetTitle(ctx, made)
	if set {
		h.Changed(ctx, start.userID)
	}
	return errors.Join(err, serr)
}

// errEnough ends an answer that is longer than any title.
var errEnough = errors.New("stream: no title is that long")

// askTitle returns what the backend says, and what that has cost. A panic on the
// way is an error.
func (h *Hub) askTitle(ctx context.Context, p *Prompt) (said string, used *models.Usage, err error) {
	sent := p.size()
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
		if used == nil {
			used = h.estimated(sent, int64(len(said)))
		}
	}()
	err = h.backend.Reply(ctx, p, func(chunk Chunk) error {
		said += chunk.Text
		if chunk.Done {
			used = h.counted(chunk.Usage)
		} else if len(said) > maxAnswer {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		err = nil
	}
	return said, used, err
}

// titlePrompt is what the backend is asked for a title with.
func titlePrompt(message, answer string) string {
	return "Give the conversation below a title of at most six words, in the language that it is in. " +
		"Say the title and nothing else, without quotation marks.\n\n" +
		"Somebody says:\n" + excerpt(message) + "\n\nThe answer is:\n" + excerpt(answer)
}

// excerpt is the beginning of text.
func excerpt(text string) string {
	if len(text) <= maxExcerpt {
		return text
	}
	end := maxExcerpt
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

// What some models put around what they think before they answer; of some, all
// that is to be seen of it is the end.
const thoughtBegins, thoughtEnds = "<think>", "</think>"

// cleanTitle makes a title of what a model says when it is asked for one: its
// first line with a word, without the marks and the label that models like to add,
// and as long as a title may be; "" if nothing is left.
func cleanTitle(said string) string {
	if strings.HasPrefix(strings.TrimSpace(said), thoughtBegins) || strings.Contains(said, thoughtEnds) {
		_, said, _ = strings.Cut(said, thoughtEnds)
	}
	for line := range strings.Lines(said) {
		line = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) && !unicode.IsSpace(r) || unicode.Is(unicode.Bidi_Control, r) {
				return -1
			}
			return r
		}, line)
		line = trimMarks(line)
		if label, rest, ok := strings.Cut(line, ":"); ok && strings.EqualFold(trimMarks(label), "title") {
			line = trimMarks(rest)
		}
		line = strings.TrimRight(line, ".。 ")
		if strings.ContainsFunc(line, isWord) {
			return models.TitleFrom(line)
		}
	}
	return ""
}

// isWord reports whether r is more than a space or a punctuation mark: part of a
// word, a sign, an emoji.
func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsSymbol(r) }

// trimMarks removes quotation marks and Markdown around a text.
func trimMarks(text string) string {
	return strings.TrimFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || unicode.Is(unicode.Quotation_Mark, r) || strings.ContainsRune("#*_`", r)
	})
}
