package models

import (
	"context"
	"errors"
	"fmt"

	"github.com/uptrace/bun"
)

// ErrNotRewritable means that a message is none that the call can begin at.
var ErrNotRewritable = errors.New("the message cannot be written anew")

// A Rewrite sends a chat on from one of its messages: with another answer
// (Regenerate), or from other words of the user (Edit).
type Rewrite struct {
	UserID    int64
	MessageID int64
	Content   string // Edit: what the user's message becomes
	Owner     string // the replica that writes the reply
	Key       *IdempotencyKey
	Budget    Budget
	Limit     Limit          // as of NewTurn
	Stored    func(Exchange) // as of NewTurn
}

// Regenerate puts an empty reply, that Owner is to write, in the place of the
// last message of its chat, which must be the assistant's: otherwise
// ErrNotRewritable. The rest is as of AppendTurn.
func (d *DB) Regenerate(ctx context.Context, w Rewrite) (Exchange, error) {
	return d.rewrite(ctx, w, func(ctx context.Context, tx bun.Tx, chat Chat, m Message) (user Message, err error) {
		if m.Role != RoleAssistant {
			return Message{}, ErrNotRewritable
		}
		later, err := tx.NewSelect().Model((*Message)(nil)).Where("chat_id = ? AND id > ?", chat.ID, m.ID).Exists(ctx)
		if err != nil {
			return Message{}, err
		}
		if later {
			return Message{}, ErrNotRewritable
		}
		err = tx.NewSelect().Model(&user).Where("chat_id = ? AND id < ? AND role = ?", chat.ID, m.ID, RoleUser).
			Order("id DESC").Limit(1).Scan(ctx)
		if isNoRows(err) {
			return Message{}, ErrNotRewritable
		}
		return user, err
	})
}

// Edit changes a message of the user, drops what followed it, and adds an empty
// reply that Owner is to write. ErrNotRewritable for a message of the
// assistant. The rest is as of AppendTurn.
func (d *DB) Edit(ctx context.Context, w Rewrite) (Exchange, error) {
	return d.rewrite(ctx, w, func(ctx context.Context, tx bun.Tx, _ Chat, m Message) (Message, error) {
		if m.Role != RoleUser {
			return Message{}, ErrNotRewritable
		}
		m.Content = w.Content
		_, err := tx.NewUpdate().Model(&m).Column("content").WherePK().Exec(ctx)
		return m, err
	})
}

// rewrite runs begin, which returns the message that is answered anew, in one
// transaction with what both of its callers do.
func (d *DB) rewrite(ctx context.Context, w Rewrite, begin func(context.Context, bun.Tx, Chat, Message) (Message, error)) (Exchange, error) {
	var refused error
	for range raceAttempts {
		ex, found, err := d.Repeated(ctx, w.UserID, w.Key)
		switch {
		case found || err != nil:
			return ex, err
		case refused != nil:
			return Exchange{}, refused
		}
		err = d.inTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
			ex, err = d.rewriteIn(ctx, tx, w, begin)
			return err
		})
		if err == nil {
			return ex, nil
		}
		if _, raced := uniqueViolation(err); raced {
			continue
		}
		if w.Key == nil {
			return Exchange{}, err
		}
		refused = err // perhaps because of this very request, sent twice: its key tells
	}
	return Exchange{}, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

func (d *DB) rewriteIn(ctx context.Context, tx bun.Tx, w Rewrite, begin func(context.Context, bun.Tx, Chat, Message) (Message, error)) (Exchange, error) {
	now := d.now()
	counted, err := w.Limit.hit(ctx, d, tx)
	if err != nil {
		return Exchange{}, err
	}
	// The chat's row is locked first, as all writers do: nothing is sent in it
	// meanwhile.
	var chat Chat
	err = tx.NewRaw(`UPDATE chats SET active_at = ?, last_message_at = ?
		WHERE id = (SELECT chat_id FROM messages WHERE id = ?) RETURNING *`, now, now, w.MessageID).Scan(ctx, &chat)
	if err != nil {
		return Exchange{}, err
	}
	if chat.UserID != w.UserID {
		return Exchange{}, ErrForbidden
	}
	if err := chatIdle(ctx, tx, chat.ID); err != nil {
		return Exchange{}, err
	}
	var m Message
	if err := tx.NewSelect().Model(&m).Where("id = ?", w.MessageID).Scan(ctx); err != nil {
		return Exchange{}, err
	}
	user, err := begin(ctx, tx, chat, m)
	if err != nil {
		return Exchange{}, err
	}
	ex := Exchange{Chat: chat, User: user, Counted: counted, Reply: Message{
		ChatID: chat.ID, Role: RoleAssistant, Status: StatusStreaming, Attempt: 1, CreatedAt: now,
	}}
	if err := replaceAnswer(ctx, tx, w.UserID, user.ID, &ex.Reply); err != nil {
		return Exchange{}, err
	}
	err = tx.NewRaw(`UPDATE chats SET message_count = (SELECT count(*) FROM messages WHERE chat_id = ?0)
		WHERE id = ?0 RETURNING *`, chat.ID, nil).Scan(ctx, &ex.Chat)
	if err != nil {
		return Exchange{}, err
	}
	var events []UserEvent
	if user.ID == w.MessageID { // Edit
		events = append(events, UserEvent{Kind: EventMessageUpdated, ChatID: chat.ID, MessageID: user.ID})
	}
	events = append(events,
		UserEvent{Kind: EventMessagesDeleted, ChatID: chat.ID, MessageID: user.ID},
		UserEvent{Kind: EventChatUpdated, ChatID: chat.ID},
		UserEvent{Kind: EventReply, ChatID: chat.ID, MessageID: ex.Reply.ID})
	args := NewTurn{UserID: w.UserID, Owner: w.Owner, Budget: w.Budget, Key: w.Key}.args(now)
	if args.Reserved, err = w.Budget.reservation(ctx, tx, chat.ID, user.ID, user.Content); err != nil {
		return Exchange{}, err
	}
	if err := d.beginReply(ctx, tx, ex, args); err != nil {
		return Exchange{}, err
	}
	if err := d.setAside(ctx, tx, args); err != nil {
		return Exchange{}, err
	}
	ask(w.Stored, ex)
	ex.Followed, err = d.tell(ctx, tx, w.UserID, events...)
	return ex, err
}

// replaceAnswer stores a reply in the place of all that follows a message of the
// user. Whoever sent that message under a key, and asks again for what came of it,
// gets this reply.
func replaceAnswer(ctx context.Context, tx bun.Tx, userID, askedID int64, reply *Message) error {
	var replaced int64
	err := tx.NewRaw("SELECT COALESCE(min(id), 0) FROM messages WHERE chat_id = ? AND id > ?", reply.ChatID, askedID).Scan(ctx, &replaced)
	if err != nil {
		return err
	}
	if _, err := tx.NewRaw("DELETE FROM messages WHERE chat_id = ? AND id > ?", reply.ChatID, askedID).Exec(ctx); err != nil {
		return err
	}
	if _, err := tx.NewInsert().Model(reply).Exec(ctx); err != nil {
		return err
	}
	_, err = tx.NewRaw("UPDATE idempotency_keys SET message_id = ? WHERE user_id = ? AND message_id = ?",
		reply.ID, userID, replaced).Exec(ctx)
	return err
}
