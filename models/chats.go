package models

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// A Chat is a conversation of one user with the assistant. Its counters are
// kept with it, so that a list of chats never reads messages.
type Chat struct {
	ID            int64 `bun:",pk,autoincrement"`
	UserID        int64
	Title         string
	Titled        bool // the title was given, or taken from a message
	CreatedAt     time.Time
	MessageCount  int64
	LastMessageAt *time.Time // when the latest message was created
	ActiveAt      time.Time  // when it was created, or last got a message or the end of one
}

// raceAttempts is how often a statement is run that lost a race in which, when
// looked at, nobody stands in the way any more.
const raceAttempts = 5

// errRaced says that a statement lost such a race.
var errRaced = errors.New("lost a race")

// CreateChat adds a chat. titled says that the user chose the title, which then
// stays. A call that repeats a key returns the chat as it was created first, and
// true; with another body, ErrKeyReused. ErrNotFound if there is no such user.
func (d *DB) CreateChat(ctx context.Context, userID int64, title string, titled bool, key *IdempotencyKey) (Chat, bool, error) {
	now := d.now()
	chat := Chat{UserID: userID, Title: title, Titled: titled, CreatedAt: now, ActiveAt: now}
	for range raceAttempts {
		used, err := d.usedKey(ctx, userID, key)
		if err != nil {
			return Chat{}, false, err
		}
		if used != nil {
			var first Chat
			if err := json.Unmarshal([]byte(used.Answer), &first); err != nil {
				return Chat{}, false, fmt.Errorf("stored answer of %s: %w", used.Route, err)
			}
			return first, true, nil
		}
		created, err := d.insertChat(ctx, chat, key)
		if _, raced := uniqueViolation(err); !raced {
			return created, false, withoutParent(err)
		}
	}
	return Chat{}, false, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

// insertChat adds the chat, and the key with it. If the key is there, it is a
// unique violation.
func (d *DB) insertChat(ctx context.Context, chat Chat, key *IdempotencyKey) (Chat, error) {
	created := chat
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		created = chat
		if _, err := tx.NewInsert().Model(&created).Exec(ctx); err != nil {
			return err
		}
		if key != nil {
			answer, err := json.Marshal(created)
			if err != nil {
				return err
			}
			row := newKey(chat.UserID, key, chat.CreatedAt)
			row.Answer = string(answer)
			if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
				return err
			}
		}
		_, err := d.tell(ctx, tx, chat.UserID, UserEvent{Kind: EventChatCreated, ChatID: created.ID})
		return err
	})
	return created, err
}

// Chats returns a page of a user's chats, latest activity first, and the cursor
// of the next page, empty at the end. A chat that becomes active while somebody
// pages moves to the front: it is not seen twice, and may be missed by the pages
// that follow. ErrInvalidCursor.
func (d *DB) Chats(ctx context.Context, userID int64, p Page) ([]Chat, string, error) {
	return d.chatPage(ctx, userID, p, func(q *bun.SelectQuery) *bun.SelectQuery { return q })
}

// chatPage is Chats of those that narrow leaves.
func (d *DB) chatPage(ctx context.Context, userID int64, p Page, narrow func(*bun.SelectQuery) *bun.SelectQuery) ([]Chat, string, error) {
	limit := p.limit()
	var chats []Chat
	q := d.read.NewSelect().Model(&chats).Where("user_id = ?", userID).
		Order("active_at DESC", "id DESC").Limit(int64(limit) + 1)
	if p.Cursor != "" {
		key, err := chatList.key(p.Cursor, 2)
		if err != nil {
			return nil, "", err
		}
		q = q.Where("(active_at, id) < (?, ?)", time.UnixMicro(key[0]), key[1])
	}
	if err := narrow(q).Scan(ctx); err != nil {
		return nil, "", classify(ctx, err)
	}
	chats, next := cut(chats, limit, func(c Chat) string { return chatList.cursor(c.ActiveAt.UnixMicro(), c.ID) })
	return chats, next, nil
}

// Chat returns a chat of the user; ErrNotFound, or ErrForbidden if it is
// somebody else's.
func (d *DB) Chat(ctx context.Context, userID, chatID int64) (Chat, error) {
	var c Chat
	if err := d.read.NewSelect().Model(&c).Where("id = ?", chatID).Scan(ctx); err != nil {
		return Chat{}, classify(ctx, err)
	}
	if c.UserID != userID {
		return Chat{}, ErrForbidden
	}
	return c, nil
}

// RenameChat sets the title, which then stays. Errors as of Chat.
func (d *DB) RenameChat(ctx context.Context, userID, chatID int64, title string) (Chat, error) {
	var c Chat
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		c = Chat{}
		err := tx.NewRaw("UPDATE chats SET title = ?, titled = TRUE WHERE id = ? AND user_id = ? RETURNING *",
			title, chatID, userID).Scan(ctx, &c)
		if err != nil {
			return err
		}
		_, err = d.tell(ctx, tx, userID, UserEvent{Kind: EventChatUpdated, ChatID: chatID})
		return err
	})
	if err != nil {
		return Chat{}, d.whyNotChat(ctx, userID, chatID, err)
	}
	return c, nil
}

// A MadeTitle is one that the AI service was asked for, and what that has used.
type MadeTitle struct {
	UserID    int64
	ChatID    int64
	MessageID int64  // the reply after which it was asked for, once
	Former    string // the title in whose place it comes; another one stays
	Title     string // "": none came of it
	Usage     Usage
}

// SetTitle gives a chat a title that was made for it, and reports whether it still
// had the former one. What that has used is counted in any case. ErrNotFound if
// there is no such user.
func (d *DB) SetTitle(ctx context.Context, made MadeTitle) (bool, error) {
	var set bool
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewRaw("UPDATE chats SET title = ?0 WHERE id = ?1 AND user_id = ?2 AND title = ?3 AND ?0 <> ''",
			made.Title, made.ChatID, made.UserID, made.Former).Exec(ctx)
		if err = changed(res, err); err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		set = err == nil
		err = d.settle(ctx, tx, settlement{
			MessageID: made.MessageID, UserID: made.UserID, ChatID: made.ChatID, Day: Day(d.now()), Usage: made.Usage,
		})
		if err != nil || !set {
			return err
		}
		_, err = d.tell(ctx, tx, made.UserID, UserEvent{Kind: EventChatUpdated, ChatID: made.ChatID})
		return err
	})
	return set && err == nil, withoutParent(err)
}

// DeleteChat deletes a chat with its messages and returns the id of the reply
// that was being written, 0 if there was none. What that reply has used is counted,
// by estimate. Errors as of Chat.
func (d *DB) DeleteChat(ctx context.Context, userID, chatID int64) (int64, error) {
	var running []charge // one at the most
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// Rows are locked in the order in which all writers do: chat, reply,
		// messages. Leaving it to the cascade, which goes to the messages
		// first, could meet SaveTexts in a deadlock.
		lock := tx.NewSelect().Model((*Chat)(nil)).Column("id").Where("id = ? AND user_id = ?", chatID, userID)
		if d.dialect == Postgres {
			lock = lock.For("UPDATE")
		}
		var id int64
		if err := lock.Scan(ctx, &id); err != nil {
			return err
		}
		running = nil
		if err := tx.NewRaw("DELETE FROM replies WHERE chat_id = ? RETURNING *", chatID).Scan(ctx, &running); err != nil {
			return err
		}
		used, err := untold(ctx, tx, running) // the text that it is estimated from goes with the chat
		if err != nil {
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM chats WHERE id = ?", chatID).Exec(ctx); err != nil {
			return err
		}
		for _, r := range running {
			if err := d.settle(ctx, tx, r.ended(used[r.MessageID])); err != nil {
				return err
			}
		}
		_, err = d.tell(ctx, tx, userID, UserEvent{Kind: EventChatDeleted, ChatID: chatID})
		return err
	})
	if err != nil {
		return 0, d.whyNotChat(ctx, userID, chatID, err)
	}
	if len(running) == 0 {
		return 0, nil
	}
	return running[0].MessageID, nil
}

// whyNotChat tells ErrForbidden from the ErrNotFound of a statement that found
// no chat of the user.
func (d *DB) whyNotChat(ctx context.Context, userID, chatID int64, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, why := d.Chat(ctx, userID, chatID); why != nil {
		return why
	}
	return err
}
