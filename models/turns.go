package models

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// A NewTurn is what a user says, and who writes the reply to it.
type NewTurn struct {
	UserID  int64
	ChatID  int64 // 0 begins a chat
	Content string
	Owner   string // the replica that writes the reply
	Key     *IdempotencyKey
	Budget  Budget
	Limit   Limit // under which the turn is counted if it is stored

	// The recording that this is the transcript of, with the fence of who owns
	// it; 0: there is none.
	UploadID, UploadFence int64

	Voice *Voice // nil: the reply is text alone

	// Stored, if not nil, is called inside the transaction as soon as the turn cannot
	// be refused any more, and must not wait. It is not told of Followed. It is called
	// again if all was taken back and done over; what counts is what AppendTurn
	// returns.
	Stored func(Exchange)
}

// An Exchange is a message of the user and the reply to it.
type Exchange struct {
	Chat     Chat
	User     Message
	Reply    Message
	Replayed bool    // it was stored before, under the same key
	Counted  Counted // under the Limit, unless Replayed
	Followed bool    // somebody follows what happens to the user, as FollowUsers said; not known of one that is Replayed

	SpeechFence int64 // of the owner of the reply's Speech; 0: it is text alone, or Replayed
}

// AppendTurn stores the user's message and an empty reply that Owner is to
// write, in one step with the chat that begins, or its counters and, if it has
// none of its own, its title.
//
// A *ReplyInProgress if a reply of the chat is being written: of several that
// are sent at once, one is stored. A turn that repeats a key is not stored
// again: the first exchange is returned as it stands, Replayed, with the reply that
// took the place of the first one if there was a Rewrite; ErrNotFound if its
// messages were deleted since, ErrKeyReused if the body differs. A
// *DailyLimit if the Budget has one and the reply might exceed it: what is set
// aside for all replies that run, and what was used, never do together, however
// many are sent at once. ErrStaleOwner if the recording has another owner: it
// becomes one turn. An *OverLimit if the Limit refuses it. Errors as of Chat;
// ErrNotFound too if there is no such user.
func (d *DB) AppendTurn(ctx context.Context, turn NewTurn) (Exchange, error) {
	if strings.IndexByte(turn.Content, 0) >= 0 {
		return Exchange{}, ErrInvalidText
	}
	store := d.appendTurnSQLite
	if d.dialect == Postgres {
		store = d.appendTurnPostgres
	}
	for range raceAttempts {
		args := turn.args(d.now())
		ex, err := store(ctx, turn, &args)
		if err == nil {
			return ex, nil
		}
		if !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrOverLimit) {
			return Exchange{}, withoutParent(err)
		}
		// It was refused, and nothing was stored. The reason may be gone by now.
		first, err := d.whyNotTurn(ctx, turn, args.Reserved, err)
		if !errors.Is(err, errRaced) {
			return first, err
		}
	}
	return Exchange{}, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

// turnArgs are the arguments of the statements that store a turn.
type turnArgs struct {
	UserID   int64
	ChatID   int64
	Content  string
	Title    string
	Owner    string
	Now      time.Time
	Route    string
	Key      string // "": none
	BodyHash string

	Day             string
	Reserved        int64
	DailyLimit      int64 // 0: nothing is set aside
	ContextBytes    int64
	ContextMessages int64

	LimitKey        string // of the turn's quota, as Emission and Burst
	Emission, Burst int64
}

func (turn NewTurn) args(now time.Time) turnArgs {
	args := turnArgs{
		UserID: turn.UserID, ChatID: turn.ChatID, Content: turn.Content, Title: TitleFrom(turn.Content),
		Owner: turn.Owner, Now: now,
		Day: Day(now), DailyLimit: turn.Budget.DailyLimit,
		ContextBytes: turn.Budget.Context.Bytes, ContextMessages: turn.Budget.Context.Messages,
	}
	if turn.Key != nil {
		args.Route, args.Key, args.BodyHash = turn.Key.Route, turn.Key.Key, turn.Key.BodyHash
	}
	return args
}

// exchange is what is stored, in a chat as it is before that: of one that begins the
// id is known.
func (a turnArgs) exchange(chat Chat, userMessageID, replyID int64) Exchange {
	if a.ChatID == 0 {
		chat = Chat{ID: chat.ID, UserID: a.UserID, CreatedAt: a.Now}
	}
	if !chat.Titled {
		chat.Title, chat.Titled = a.Title, true
	}
	chat.MessageCount += 2
	chat.LastMessageAt, chat.ActiveAt = &a.Now, a.Now
	message := Message{ChatID: chat.ID, Attempt: 1, CreatedAt: a.Now}
	user, reply := message, message
	user.ID, user.Role, user.Content, user.Status = userMessageID, RoleUser, a.Content, StatusComplete
	reply.ID, reply.Role, reply.Status = replyID, RoleAssistant, StatusStreaming
	return Exchange{Chat: chat, User: user, Reply: reply}
}

// events is what a turn that is stored tells the user.
func (turn NewTurn) events(ex Exchange) []UserEvent {
	happened := EventChatUpdated
	if turn.ChatID == 0 {
		happened = EventChatCreated
	}
	return []UserEvent{
		{Kind: happened, ChatID: ex.Chat.ID},
		{Kind: EventMessageCreated, ChatID: ex.Chat.ID, MessageID: ex.User.ID},
		{Kind: EventReply, ChatID: ex.Chat.ID, MessageID: ex.Reply.ID},
	}
}

// ask calls what a turn's Stored is, or a rewrite's.
func ask(stored func(Exchange), ex Exchange) {
	if stored != nil {
		stored(ex)
	}
}

// beginReply stores that the reply of ex runs, and under which key, if any, it was
// asked for.
func (d *DB) beginReply(ctx context.Context, tx bun.Tx, ex Exchange, args turnArgs) error {
	_, err := d.exec(ctx, tx, `INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at, reserved, context_bytes, context_messages)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, ex.Reply.ID, ex.Chat.ID, args.UserID, ex.User.ID, args.Owner, args.Now,
		args.Reserved, args.ContextBytes, args.ContextMessages)
	if err != nil || args.Key == "" {
		return err
	}
	_, err = d.exec(ctx, tx, `INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, message_id, created_at)
		VALUES (?, ?, ?, ?, 0, ?, ?)`, args.UserID, args.Route, args.Key, args.BodyHash, ex.Reply.ID, args.Now)
	return err
}

// setAside sets tokens aside for the reply, if there is a limit of the day; a
// *DailyLimit if that would exceed it.
func (d *DB) setAside(ctx context.Context, tx bun.Tx, args turnArgs) error {
	if args.DailyLimit == 0 {
		return nil
	}
	set := "SELECT 1 WHERE set_aside(?user_id, ?day, ?reserved, ?daily_limit)"
	if d.dialect == SQLite {
		set = `INSERT INTO usage_days AS d (user_id, day, reserved)
			SELECT ?user_id, ?day, ?reserved WHERE ?reserved <= ?daily_limit
			ON CONFLICT (user_id, day) DO UPDATE SET reserved = d.reserved + EXCLUDED.reserved
				WHERE d.input_tokens + d.output_tokens + d.reserved + EXCLUDED.reserved <= ?daily_limit
			RETURNING 1`
	}
	var one int
	err := tx.NewRaw(set, args).Scan(ctx, &one)
	if isNoRows(err) {
		return overLimit(ctx, tx, args.UserID, args.Now, args.Reserved, args.DailyLimit)
	}
	return err
}

// whyNotTurn tells why a turn was refused with an error that was to have so many
// tokens set aside: with the exchange of an earlier turn that had its key, or an
// error; errRaced if there is no reason any more.
func (d *DB) whyNotTurn(ctx context.Context, turn NewTurn, tokens int64, refused error) (Exchange, error) {
	if first, found, err := d.Repeated(ctx, turn.UserID, turn.Key); found || err != nil {
		return first, err
	}
	if errors.Is(refused, ErrOverLimit) {
		return Exchange{}, refused
	}
	if turn.ChatID == 0 {
		if _, err := d.User(ctx, turn.UserID); err != nil {
			return Exchange{}, err
		}
	} else {
		if _, err := d.Chat(ctx, turn.UserID, turn.ChatID); err != nil {
			return Exchange{}, err
		}
		if err := d.ChatIdle(ctx, turn.ChatID); err != nil {
			return Exchange{}, err
		}
	}
	if err := overLimit(ctx, d.read, turn.UserID, d.now(), tokens, turn.Budget.DailyLimit); err != nil {
		return Exchange{}, classify(ctx, err)
	}
	return Exchange{}, errRaced
}

// Repeated returns the exchange that a key was used for, as AppendTurn and the
// rewrites do; found is false if it was not used, or key is nil.
func (d *DB) Repeated(ctx context.Context, userID int64, key *IdempotencyKey) (ex Exchange, found bool, err error) {
	used, err := d.usedKey(ctx, userID, key)
	if err != nil || used == nil {
		return Exchange{}, false, err
	}
	ex, err = d.storedExchange(ctx, userID, used.MessageID)
	return ex, err == nil, err
}

// storedExchange is the exchange of a reply, as it stands.
func (d *DB) storedExchange(ctx context.Context, userID, replyID int64) (Exchange, error) {
	reply, err := d.Message(ctx, userID, replyID)
	if err != nil {
		return Exchange{}, err
	}
	chat, err := d.Chat(ctx, userID, reply.ChatID)
	if err != nil {
		return Exchange{}, err
	}
	var user Message
	err = d.read.NewSelect().Model(&user).Where("chat_id = ? AND id < ? AND role = ?", reply.ChatID, replyID, RoleUser).
		Order("id DESC").Limit(1).Scan(ctx)
	return Exchange{Chat: chat, User: user, Reply: reply, Replayed: true}, classify(ctx, err)
}
