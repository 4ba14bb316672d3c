package models

import (
	"context"
	"errors"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// ownerless is the condition on uploads that nobody living owns them.
func (d *DB) ownerless() schema.QueryAppender {
	return bun.SafeQuery(`(uploads.owner = ''
		OR NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = uploads.owner AND lease_until > ?0))`, d.clock(0), nil)
}

// A Completion says that a recording has arrived whole, and what is wanted of it.
type Completion struct {
	UserID   int64
	UploadID int64
	ChatID   int64  // where it goes, if that was not said before; 0: as it is
	Format   string // as of NewChunk
	Voice    string
	Speed    float64
	Key      *IdempotencyKey
	Keep     time.Duration // from here on it does not expire before that
}

// CompleteUpload makes an upload Whole, and returns it as it is then. Of one that
// was before, what is wanted stays as it was said first; but where a try has
// failed, another one may begin. ErrUploadEmpty; errors as of Upload, and as of
// Chat where one is named.
func (d *DB) CompleteUpload(ctx context.Context, c Completion) (Upload, error) {
	key := IdempotencyKey{}
	if c.Key != nil {
		key = *c.Key
	}
	var u Upload
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		u = Upload{}
		if c.ChatID != 0 {
			if err := d.holdChat(ctx, tx, c.UserID, c.ChatID); err != nil {
				return err
			}
		}
		err := tx.NewRaw(`UPDATE uploads SET whole = TRUE, voice = ?0, speed = ?1, key_route = ?2, key = ?3, body_hash = ?4,
				chat_id = COALESCE(chat_id, NULLIF(?5, 0)),
				format = CASE WHEN ?6 = '' THEN format ELSE ?6 END, sniffed = sniffed OR ?6 <> '',
				expires_at = CASE WHEN expires_at < ?7 THEN ?7 ELSE expires_at END
			WHERE id = ?8 AND user_id = ?9 AND size > 0 AND NOT whole AND NOT ended AND expires_at > ?10 RETURNING *`,
			c.Voice, c.Speed, key.Route, key.Key, key.BodyHash, c.ChatID, c.Format, d.clock(c.Keep),
			c.UploadID, c.UserID, d.clock(0)).Scan(ctx, &u)
		if !isNoRows(err) {
			return err
		}
		err = tx.NewRaw(`UPDATE uploads SET failure = '' WHERE id = ? AND user_id = ? AND whole AND NOT ended
			AND expires_at > ? RETURNING *`, c.UploadID, c.UserID, d.clock(0)).Scan(ctx, &u)
		return err
	})
	if !errors.Is(err, ErrNotFound) {
		return u, withoutParent(err)
	}
	u, err = d.Upload(ctx, c.UserID, c.UploadID)
	if err == nil && !u.Whole && u.Size == 0 {
		err = ErrUploadEmpty
	}
	return u, err
}

// TakeUpload makes owner the one that transcribes an upload, raises its fence,
// and returns it. It takes only one that has that fence and no living owner but
// this one: of several callers one gets it, the others ErrStaleOwner, as if it
// has ended or is gone.
func (d *DB) TakeUpload(ctx context.Context, uploadID, fence int64, owner string) (Upload, error) {
	var u Upload
	err := d.write.NewRaw(`UPDATE uploads SET fence = fence + 1, owner = ?0, tries = tries + 1, failure = ''
		WHERE id = ?1 AND fence = ?2 AND NOT ended AND (owner = ?0 OR ?3) RETURNING *`,
		owner, uploadID, fence, d.ownerless()).Scan(ctx, &u)
	if isNoRows(err) {
		return Upload{}, ErrStaleOwner
	}
	return u, classify(ctx, err)
}

// UploadPiece returns the bytes of an upload from an offset on, as many as lie
// together and none where there are no more yet, and how the upload is at that
// moment. ErrStaleOwner if it has another fence, or is gone.
func (d *DB) UploadPiece(ctx context.Context, uploadID, fence, from int64) ([]byte, Upload, error) {
	var row struct {
		Upload
		Data []byte
	}
	// One statement, so that what is whole has no more bytes than are seen.
	err := d.read.NewRaw(`SELECT uploads.*, substr(data, CAST(?1 - start + 1 AS integer)) AS data
		FROM uploads LEFT JOIN upload_chunks ON `+chunkAt+` WHERE id = ?0 AND fence = ?2 AND NOT ended`,
		uploadID, from, fence).Scan(ctx, &row)
	if isNoRows(err) {
		return nil, Upload{}, ErrStaleOwner
	}
	return row.Data, row.Upload, classify(ctx, err)
}

// An UploadEnd is how a try at an upload ends for its owner, who lets go of it.
// It has ended itself where the reply to it is named, or Dropped.
type UploadEnd struct {
	UploadID   int64
	Fence      int64
	Transcript string // "": as it is
	Failure    string // a code; "": none, and whoever comes next may try
	MessageID  int64  // the reply, of a recording that was used before under another id
	Dropped    bool   // nothing can come of it
}

// EndTry stores an UploadEnd, and raises the fence: who read the upload before the
// try failed cannot take it. ErrStaleOwner if the upload has another owner, has
// ended or is gone.
func (d *DB) EndTry(ctx context.Context, end UploadEnd) error {
	ended := end.Dropped || end.MessageID != 0
	return d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewRaw(`UPDATE uploads SET fence = fence + 1, owner = '', failure = ?0, ended = ?1, message_id = NULLIF(?2, 0),
				transcript = CASE WHEN ?1 THEN '' WHEN ?3 = '' THEN transcript ELSE ?3 END
			WHERE id = ?4 AND fence = ?5 AND NOT ended`,
			end.Failure, ended, end.MessageID, end.Transcript, end.UploadID, end.Fence).Exec(ctx)
		if err := changed(res, err); err != nil {
			if errors.Is(err, ErrNotFound) {
				return ErrStaleOwner
			}
			return err
		}
		if !ended {
			return nil
		}
		_, err = tx.NewRaw("DELETE FROM upload_chunks WHERE upload_id = ?", end.UploadID).Exec(ctx)
		return err
	})
}

// useUpload marks the upload of a turn as used, and deletes its bytes: once,
// however many try. ErrStaleOwner if it has another owner, has ended or is gone.
func (turn NewTurn) useUpload(ctx context.Context, tx bun.IDB, replyID int64) error {
	if turn.UploadID == 0 {
		return nil
	}
	res, err := tx.NewRaw(`UPDATE uploads SET ended = TRUE, message_id = ?, owner = '', transcript = ''
		WHERE id = ? AND user_id = ? AND fence = ? AND NOT ended`, replyID, turn.UploadID, turn.UserID, turn.UploadFence).Exec(ctx)
	if err := changed(res, err); err != nil {
		if errors.Is(err, ErrNotFound) {
			return ErrStaleOwner
		}
		return err
	}
	_, err = tx.NewRaw("DELETE FROM upload_chunks WHERE upload_id = ?", turn.UploadID).Exec(ctx)
	return err
}

// OrphanedUploads returns uploads that are whole, have not failed, and have no
// living owner but this one, the oldest first: of those that fewer than so many
// have tried.
func (d *DB) OrphanedUploads(ctx context.Context, owner string, tries, limit int) ([]Upload, error) {
	var us []Upload
	err := d.read.NewRaw(`SELECT * FROM uploads WHERE whole AND NOT ended AND failure = '' AND tries < ?
			AND expires_at > ? AND (owner = ? OR ?) ORDER BY id LIMIT ?`,
		tries, d.clock(0), owner, d.ownerless(), limit).Scan(ctx, &us)
	return us, classify(ctx, err)
}

// ChatIdle returns a *ReplyInProgress if a reply of the chat is being written.
func (d *DB) ChatIdle(ctx context.Context, chatID int64) error {
	return classify(ctx, chatIdle(ctx, d.read, chatID))
}

func chatIdle(ctx context.Context, db bun.IDB, chatID int64) error {
	var running int64
	err := db.NewRaw("SELECT message_id FROM replies WHERE chat_id = ?", chatID).Scan(ctx, &running)
	switch {
	case err == nil:
		return &ReplyInProgress{MessageID: running}
	case isNoRows(err):
		return nil
	}
	return err
}

// KeyedExchange returns the exchange that was stored under a key, as AppendTurn
// does of a turn that repeats it; ErrNotFound if there is none.
func (d *DB) KeyedExchange(ctx context.Context, userID int64, key IdempotencyKey) (Exchange, error) {
	ex, found, err := d.Repeated(ctx, userID, &key)
	if !found && err == nil {
		err = ErrNotFound
	}
	return ex, err
}

// Exchange returns the exchange that a reply belongs to, as it stands. Errors as
// of Message.
func (d *DB) Exchange(ctx context.Context, userID, replyID int64) (Exchange, error) {
	ex, err := d.storedExchange(ctx, userID, replyID)
	ex.Replayed = false
	return ex, err
}
