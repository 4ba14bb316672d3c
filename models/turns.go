package models

import (
	"context"
	"errors"
	"fmt"
	"math"
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

	// Stored, if not nil, is called inside the transaction when only what is told
	// of it and the commit are missing, and must not wait. It is not told of
	// Followed. It is called again if all was taken back and done over; what counts
	// is what AppendTurn returns.
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
	insert := d.insertTurnSQLite
	if d.dialect == Postgres {
		insert = d.insertTurnPostgres
	}
	args := turn.args(d.now())
	for range raceAttempts {
		var ex Exchange
		err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
			counted, err := turn.Limit.hit(ctx, d, tx)
			if err != nil {
				return err
			}
			args.Reserved, err = turn.Budget.reservation(ctx, tx, turn.ChatID, math.MaxInt64, turn.Content)
			if err != nil {
				return err
			}
			if ex, err = insert(ctx, tx, args); err == nil {
				ex.Counted = counted
				err = turn.useUpload(ctx, tx, ex.Reply.ID)
			}
			if err == nil {
				ex.SpeechFence, err = turn.beginSpeech(ctx, tx, ex.Reply.ID, args.Now)
			}
			if err != nil {
				return err
			}
			happened := EventChatUpdated
			if turn.ChatID == 0 {
				happened = EventChatCreated
			}
			return d.tellReply(ctx, tx, turn.UserID, &ex, turn.Stored,
				UserEvent{Kind: happened, ChatID: ex.Chat.ID},
				UserEvent{Kind: EventMessageCreated, ChatID: ex.Chat.ID, MessageID: ex.User.ID})
		})
		if err == nil {
			return ex, nil
		}
		_, duplicate := uniqueViolation(err)
		switch {
		case foreignKeyViolation(err):
			return Exchange{}, withoutParent(err)
		case !duplicate && !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrOverLimit):
			return Exchange{}, err
		}
		// It was refused, and nothing was stored. The reason may be gone by now.
		first, err := d.whyNotTurn(ctx, turn, args.Reserved, err)
		if !errors.Is(err, errRaced) {
			return first, err
		}
	}
	return Exchange{}, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

// turnArgs are the arguments of the statements below.
type turnArgs struct {
	UserID    int64
	ChatID    int64
	Content   string
	Title     string
	Owner     string
	Now       time.Time
	KeysSince time.Time // older keys are free
	Route     string
	Key       string // "": none
	BodyHash  string

	Day             string
	Reserved        int64
	DailyLimit      int64 // 0: nothing is set aside
	ContextBytes    int64
	ContextMessages int64
}

func (turn NewTurn) args(now time.Time) turnArgs {
	args := turnArgs{
		UserID: turn.UserID, ChatID: turn.ChatID, Content: turn.Content, Title: TitleFrom(turn.Content),
		Owner: turn.Owner, Now: now, KeysSince: now.Add(-keyLifetime),
		Day: Day(now), DailyLimit: turn.Budget.DailyLimit,
		ContextBytes: turn.Budget.Context.Bytes, ContextMessages: turn.Budget.Context.Messages,
	}
	if turn.Key != nil {
		args.Route, args.Key, args.BodyHash = turn.Key.Route, turn.Key.Key, turn.Key.BodyHash
	}
	return args
}

// exchange is what was stored.
func (a turnArgs) exchange(chat Chat, userMessageID, replyID int64) Exchange {
	message := Message{ChatID: chat.ID, Attempt: 1, CreatedAt: a.Now}
	user, reply := message, message
	user.ID, user.Role, user.Content, user.Status = userMessageID, RoleUser, a.Content, StatusComplete
	reply.ID, reply.Role, reply.Status = replyID, RoleAssistant, StatusStreaming
	return Exchange{Chat: chat, User: user, Reply: reply}
}

// The statements of a turn, for both dialects. The first one finds no row if the
// turn is refused, which is how it is known without an error in most cases.
const (
	unusedKey = `NOT EXISTS (SELECT 1 FROM idempotency_keys WHERE user_id = ?user_id AND route = ?route AND key = ?key)`

	beginChat = `INSERT INTO chats (user_id, title, titled, created_at, message_count, last_message_at, active_at)
		SELECT ?user_id, ?title, TRUE, ?now, 2, ?now, ?now WHERE ` + unusedKey + ` RETURNING *`

	raiseChat = `UPDATE chats SET message_count = message_count + 2, last_message_at = ?now, active_at = ?now,
			title = CASE WHEN titled THEN title ELSE ?title END, titled = TRUE
		WHERE id = ?chat_id AND user_id = ?user_id
			AND NOT EXISTS (SELECT 1 FROM replies WHERE chat_id = ?chat_id) AND ` + unusedKey + ` RETURNING *`
)

// insertTurnPostgres stores all of an exchange but what to tell the user: one
// statement and so one round trip. Where there is a daily limit, the last part sets
// the tokens aside; if it cannot, nothing is returned, and so all is taken back.
//
// Under READ COMMITTED the sends to one chat queue at the chat's row. The one
// that waited sees the row as the first one left it, but everything else as of
// its own start, without the reply that was committed meanwhile: then UNIQUE
// (chat_id) of replies refuses it, and takes back all of the statement. Equal
// keys meet in the same way at the key's row.
//
// The reply's insert reads what the user's has returned, so its id is higher.
func (d *DB) insertTurnPostgres(ctx context.Context, tx bun.Tx, args turnArgs) (Exchange, error) {
	first := raiseChat
	if args.ChatID == 0 {
		first = beginChat
	}
	keyed, last := "", "running"
	if args.Key != "" {
		keyed = `, keyed AS (
			INSERT INTO idempotency_keys (user_id, route, key, body_hash, status, message_id, created_at)
			SELECT ?user_id, ?route, ?key, ?body_hash, 0, reply_id, ?now FROM running RETURNING key)`
		last = "running, keyed"
	}
	if args.DailyLimit > 0 {
		keyed += ", spent AS (" + reserve(" FROM "+last) + " RETURNING day)"
		last += ", spent"
	}
	var row struct {
		Chat
		UserMessageID int64
		ReplyID       int64
	}
	err := tx.NewRaw(`
		WITH chat AS (`+first+`),
		asked AS (
			INSERT INTO messages (chat_id, role, content, status, created_at)
			SELECT id, 'user', ?content, 'complete', ?now FROM chat RETURNING id, chat_id),
		answer AS (
			INSERT INTO messages (chat_id, role, content, status, created_at)
			SELECT chat_id, 'assistant', '', 'streaming', ?now FROM asked RETURNING id),
		running AS (
			INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at, reserved, context_bytes, context_messages)
			SELECT answer.id, asked.chat_id, ?user_id, asked.id, ?owner, ?now, ?reserved, ?context_bytes, ?context_messages
			FROM asked, answer
			RETURNING message_id AS reply_id, user_message_id)`+keyed+`
		SELECT chat.*, user_message_id, reply_id FROM chat, `+last, args).Scan(ctx, &row)
	return args.exchange(row.Chat, row.UserMessageID, row.ReplyID), err
}

// insertTurnSQLite is the same in several statements: its transaction has the
// write lock, so what the first one has found stays true.
func (d *DB) insertTurnSQLite(ctx context.Context, tx bun.Tx, args turnArgs) (Exchange, error) {
	first := raiseChat
	if args.ChatID == 0 {
		first = beginChat
	}
	var chat Chat
	if err := tx.NewRaw(first, args).Scan(ctx, &chat); err != nil {
		return Exchange{}, err
	}
	ex := args.exchange(chat, 0, 0)
	both := []*Message{&ex.User, &ex.Reply}
	if _, err := tx.NewInsert().Model(&both).Exec(ctx); err != nil {
		return Exchange{}, err
	}
	if ex.User.ID > ex.Reply.ID { // SQLite numbers rows in their order, and returns them in any
		ex.User.ID, ex.Reply.ID = ex.Reply.ID, ex.User.ID
	}
	var key *IdempotencyKey
	if args.Key != "" {
		key = &IdempotencyKey{Route: args.Route, Key: args.Key, BodyHash: args.BodyHash}
	}
	return ex, beginReply(ctx, tx, ex, args, key)
}

// beginReply stores all of an exchange but its messages and what to tell the user:
// that its reply runs, the key if there is one, and what is set aside for it.
func beginReply(ctx context.Context, tx bun.Tx, ex Exchange, args turnArgs, key *IdempotencyKey) error {
	userID, now := args.UserID, args.Now
	_, err := tx.NewRaw(`INSERT INTO replies (message_id, chat_id, user_id, user_message_id, owner, started_at, reserved, context_bytes, context_messages)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, ex.Reply.ID, ex.Chat.ID, userID, ex.User.ID, args.Owner, now,
		args.Reserved, args.ContextBytes, args.ContextMessages).Exec(ctx)
	if err != nil {
		return err
	}
	if key != nil {
		row := newKey(userID, key, now)
		row.MessageID = ex.Reply.ID
		if _, err := tx.NewInsert().Model(&row).Exec(ctx); err != nil {
			return err
		}
	}
	if args.DailyLimit == 0 {
		return nil
	}
	res, err := tx.NewRaw(reserve(""), args).Exec(ctx)
	if errors.Is(changed(res, err), ErrNotFound) {
		return overLimit(ctx, tx, userID, now, args.Reserved, args.DailyLimit)
	}
	return err
}

// tellReply ends the transaction that begins a reply: it calls stored, if that is
// not nil, and then tells the user of events and of the reply, while whoever was
// called is at work.
func (d *DB) tellReply(ctx context.Context, tx bun.Tx, userID int64, ex *Exchange, stored func(Exchange), events ...UserEvent) (err error) {
	if stored != nil {
		stored(*ex)
	}
	ex.Followed, err = d.tell(ctx, tx, userID, append(events, UserEvent{Kind: EventReply, ChatID: ex.Chat.ID, MessageID: ex.Reply.ID})...)
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
	if turn.ChatID != 0 {
		if _, err := d.Chat(ctx, turn.UserID, turn.ChatID); err != nil {
			return Exchange{}, err
		}
		var running int64
		err := d.read.NewRaw("SELECT message_id FROM replies WHERE chat_id = ?", turn.ChatID).Scan(ctx, &running)
		switch {
		case err == nil:
			return Exchange{}, &ReplyInProgress{MessageID: running}
		case !isNoRows(err):
			return Exchange{}, classify(ctx, err)
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
