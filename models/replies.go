package models

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// A RunningReply is a reply that is being written. Fence counts its owners: it
// rises when another replica takes the reply over, and whoever names an earlier
// one cannot write any more. The message's Attempt counts something else, the
// texts that were begun: an owner that goes on where the last one stood begins
// none.
type RunningReply struct {
	MessageID       int64
	ChatID          int64
	UserID          int64
	UserMessageID   int64
	Owner           string // the replica that writes it; "" if it was released
	Fence           int
	SavedBytes      int64
	SharedBytes     int64 // as of Message
	StopRequestedAt *time.Time
	WatchedUntil    *time.Time
	StartedAt       time.Time
}

// A ReplyText is a piece of a reply's text, valid UTF-8.
type ReplyText struct {
	MessageID int64
	Fence     int   // of the owner that writes it
	Start     int64 // its offset in bytes
	Text      string
}

// A ReplyEnd is how a reply has ended: its whole text, and with StatusComplete,
// StatusStopped or StatusFailed why. Empty strings are stored as NULL. Usage is
// that of the owner who ends it; nil: not known, and counted as nothing.
type ReplyEnd struct {
	MessageID    int64
	Fence        int // of the owner that wrote it
	Content      string
	Status       string
	FinishReason string
	ErrorCode    string
	Usage        *Usage
}

// Progress is how far a reply is, for those who follow it.
type Progress struct {
	Message       Message // Content is empty while it is being written
	UserID        int64
	UserMessageID int64 // what it answers; 0 if that is gone
	Title         string
	Running       *RunningReply // nil once it has ended
	Text          string        // the text from the offset that was asked for, as far as it is saved
	Speech        *Speech       // without UserID, Owner and Fence; nil for text alone
}

// FinishReply ends a reply, and counts what it has used. ErrStaleOwner if it has another owner,
// ErrNotFound if it is not running: finished before, also by a call whose answer
// was lost, or deleted.
func (d *DB) FinishReply(ctx context.Context, end ReplyEnd) error {
	err := d.inSmallTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// The chat's row is locked first, as all writers do. A reply that is
		// taken over while this waits is noticed by the next statement.
		_, err := d.exec(ctx, tx, `UPDATE chats SET active_at = ?
			WHERE id = (SELECT chat_id FROM replies WHERE message_id = ? AND fence = ?)`,
			d.now(), end.MessageID, end.Fence)
		if err != nil {
			return err
		}
		var r charge
		err = d.scan(ctx, tx, &r, "DELETE FROM replies WHERE message_id = ? AND fence = ? RETURNING *", end.MessageID, end.Fence)
		if err != nil {
			return err
		}
		var (
			used          Usage
			input, output *int64
		)
		if end.Usage != nil {
			used = *end.Usage
			input, output = &used.InputTokens, &used.OutputTokens
		}
		var ended []int64
		err = d.scanAll(ctx, tx, &ended, `UPDATE messages SET content = ?, status = ?, finish_reason = NULLIF(?, ''),
			error_code = NULLIF(?, ''), input_tokens = ?, output_tokens = ?, estimated = ? WHERE id = ? RETURNING id`,
			end.Content, end.Status, end.FinishReason, end.ErrorCode, input, output, used.Estimated, end.MessageID)
		if err != nil {
			return err
		}
		// A statement of its own, to see what SaveTexts wrote before the reply's
		// row was ours.
		_, err = d.exec(ctx, tx, "DELETE FROM reply_chunks WHERE message_id = ?", end.MessageID)
		if err != nil {
			return err
		}
		return d.settle(ctx, tx, r.ended(used))
	})
	return d.whyNotReply(ctx, end.MessageID, err)
}

// ReplyProgress returns how far a reply is, and its text from a byte offset on.
// It does not ask whose it is. ErrNotFound if there is no such assistant message.
func (d *DB) ReplyProgress(ctx context.Context, messageID, from int64) (Progress, error) {
	all, err := d.RepliesProgress(ctx, map[int64]int64{messageID: from})
	if err != nil {
		return Progress{}, err
	}
	p, found := all[messageID]
	if !found {
		return Progress{}, ErrNotFound
	}
	return p, nil
}

// RepliesProgress is ReplyProgress of several replies, each from an offset of its
// own. Those that there are not are left out.
func (d *DB) RepliesProgress(ctx context.Context, from map[int64]int64) (map[int64]Progress, error) {
	if len(from) == 0 {
		return nil, nil
	}
	all, err := repliesProgress(ctx, d.read, from)
	return all, classify(ctx, err)
}

func repliesProgress(ctx context.Context, db bun.IDB, from map[int64]int64) (map[int64]Progress, error) {
	type asked struct{ MessageID, Start int64 }
	ask := make([]asked, 0, len(from))
	for id, start := range from {
		ask = append(ask, asked{id, max(start, 0)})
	}
	var rows []progressRow
	// One statement, so that no end of a reply can come between its parts. It
	// reads the chunks from the one on that holds the offset.
	err := db.NewRaw(`
		WITH asked (message_id, start) AS (?)
		SELECT m.*, chats.user_id, chats.title, r.owner, r.fence, r.saved_bytes, r.stop_requested_at, r.watched_until, r.started_at,
			s.attempt AS speech_attempt, s.pieces AS speech_pieces, s.state AS speech_state, s.name, s.speed, s.format,
			asked.start AS asked_start,
			(SELECT max(id) FROM messages WHERE chat_id = m.chat_id AND id < m.id AND role = 'user') AS user_message_id,
			(SELECT max(start) FROM reply_chunks WHERE message_id = m.id AND start <= asked.start) AS text_start,
			(SELECT string_agg(text, '' ORDER BY start) FROM reply_chunks WHERE message_id = m.id AND start >= COALESCE(
				(SELECT max(start) FROM reply_chunks WHERE message_id = m.id AND start <= asked.start), 0)) AS text
		FROM asked JOIN messages m ON m.id = asked.message_id JOIN chats ON chats.id = m.chat_id
			LEFT JOIN replies r ON r.message_id = m.id LEFT JOIN speeches s ON s.message_id = m.id
		WHERE m.role = 'assistant'`, db.NewValues(&ask)).Scan(ctx, &rows)
	if err != nil {
		return nil, err
	}
	all := make(map[int64]Progress, len(rows))
	for _, row := range rows {
		all[row.ID] = row.progress()
	}
	return all, nil
}

// A progressRow is what RepliesProgress reads of one reply.
type progressRow struct {
	Message
	UserID          int64
	Title           string
	UserMessageID   int64
	Owner           *string
	Fence           int
	SavedBytes      int64
	StopRequestedAt *time.Time
	WatchedUntil    *time.Time
	StartedAt       time.Time
	SpeechAttempt   int
	SpeechPieces    int
	SpeechState     *string
	Voice
	AskedStart int64
	TextStart  int64
	Text       string
}

func (row progressRow) progress() Progress {
	p := Progress{Message: row.Message, UserID: row.UserID, UserMessageID: row.UserMessageID, Title: row.Title}
	if row.SpeechState != nil {
		p.Speech = &Speech{
			MessageID: row.ID, Voice: row.Voice, Attempt: row.SpeechAttempt, Pieces: row.SpeechPieces, State: *row.SpeechState,
		}
	}
	if row.Owner == nil {
		p.Text = p.Message.Content[min(row.AskedStart, int64(len(p.Message.Content))):]
		return p
	}
	p.Text = row.Text[min(row.AskedStart-row.TextStart, int64(len(row.Text))):]
	p.Running = &RunningReply{
		MessageID: row.ID, ChatID: row.ChatID, UserID: row.UserID, UserMessageID: row.UserMessageID,
		Owner: *row.Owner, Fence: row.Fence, SavedBytes: row.SavedBytes, SharedBytes: row.SharedBytes,
		StopRequestedAt: row.StopRequestedAt, WatchedUntil: row.WatchedUntil, StartedAt: row.StartedAt,
	}
	return p
}

// SaveTexts appends to the texts of running replies, one piece each at the most,
// and returns the ids of those that were saved. A piece is left out if its reply
// has ended, has another owner, or does not stand at Start.
func (d *DB) SaveTexts(ctx context.Context, texts []ReplyText) ([]int64, error) {
	if len(texts) == 0 {
		return nil, nil
	}
	save := d.saveTextsSQLite
	if d.dialect == Postgres {
		save = d.saveTextsPostgres
	}
	for range raceAttempts {
		saved, err := save(ctx, texts)
		// A message that is deleted with its user may go while its chunk is
		// written. Then its reply has gone too, and the others are saved.
		if !foreignKeyViolation(err) && !retryable(err) {
			return saved, classify(ctx, err)
		}
	}
	return nil, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

// saveTextsPostgres is one statement. The lock of the reply's row is the fence:
// an UPDATE that waits for TakeReplies or a FinishReply looks at the row again as
// that one left it, and then its fence, or the row itself, no longer matches.
func (d *DB) saveTextsPostgres(ctx context.Context, texts []ReplyText) ([]int64, error) {
	var (
		ids, starts []int64
		fences      []int
		pieces      []string
		saved       []int64
	)
	for _, t := range texts {
		ids, fences, starts, pieces = append(ids, t.MessageID), append(fences, t.Fence), append(starts, t.Start), append(pieces, t.Text)
	}
	err := d.beside(ctx, d.write.DB, &saved, `
		WITH piece (message_id, fence, start, text) AS (SELECT * FROM unnest(?::bigint[], ?::int[], ?::bigint[], ?::text[])),
		saved AS (
			UPDATE replies SET saved_bytes = saved_bytes + octet_length(piece.text) FROM piece
			WHERE replies.message_id = piece.message_id AND replies.fence = piece.fence
				AND replies.saved_bytes = piece.start
			RETURNING piece.message_id, piece.start, piece.text)
		INSERT INTO reply_chunks (message_id, start, text) SELECT message_id, start, text FROM saved
		RETURNING message_id`, ids, fences, starts, pieces)
	return saved, err
}

// saveTextsSQLite is the same as a transaction of small statements: one large
// statement is no faster in process.
func (d *DB) saveTextsSQLite(ctx context.Context, texts []ReplyText) ([]int64, error) {
	var saved []int64
	err := d.inSmallTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		saved = nil
		for _, t := range texts {
			res, err := d.exec(ctx, tx, `UPDATE replies SET saved_bytes = saved_bytes + ?
				WHERE message_id = ? AND fence = ? AND saved_bytes = ?`, len(t.Text), t.MessageID, t.Fence, t.Start)
			switch err := changed(res, err); {
			case errors.Is(err, ErrNotFound):
				continue
			case err != nil:
				return err
			}
			_, err = d.exec(ctx, tx, "INSERT INTO reply_chunks (message_id, start, text) VALUES (?, ?, ?)", t.MessageID, t.Start, t.Text)
			if err != nil {
				return err
			}
			saved = append(saved, t.MessageID)
		}
		return nil
	})
	return saved, err
}

// whyNotReply tells ErrStaleOwner from the ErrNotFound of a statement that
// found no reply with that fence.
func (d *DB) whyNotReply(ctx context.Context, messageID int64, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	running, why := d.read.NewSelect().Table("replies").Where("message_id = ?", messageID).Exists(ctx)
	if why != nil {
		return classify(ctx, why)
	}
	if running {
		return ErrStaleOwner
	}
	return err
}
