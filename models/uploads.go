package models

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// An Upload is a recording on its way to becoming a message. It lives until it
// expires; used or dropped before that it has Ended, and its bytes are gone.
type Upload struct {
	ID        int64 `bun:",pk,autoincrement"`
	UserID    int64
	ChatID    int64  `bun:",nullzero"` // 0: a chat begins with it
	MessageID int64  `bun:",nullzero"` // the reply to it, once it was used
	Format    string // as it was said, or told by the first bytes; "" if neither
	Sniffed   bool   // it was told by the first bytes
	Size      int64  // bytes that have arrived
	Whole     bool   // and nothing follows
	Ended     bool

	Owner      string // the replica that transcribes it; "": none
	Fence      int64  // rises with every owner
	Tries      int64  // how many owners there were
	Transcript string // if it is known
	Failure    string // a code: why the last try came to nothing

	Voice    string  // in which the reply is spoken; "": the service's choice
	Speed    float64 // 0: 1.0
	KeyRoute string  // the IdempotencyKey of the turn, if there is a Key
	Key      string
	BodyHash string

	CreatedAt time.Time
	ExpiresAt time.Time

	Orphaned bool `bun:",scanonly"` // nobody living owns it
}

var (
	// ErrTooManyUploads says that the user has as many uploads open as one may.
	ErrTooManyUploads = errors.New("too many uploads are open")
	// ErrUploadWhole says that nothing can be added to an upload any more.
	ErrUploadWhole = errors.New("the upload is complete")
	// ErrUploadEmpty says that nothing of a recording has arrived.
	ErrUploadEmpty = errors.New("the upload is empty")
	// ErrWrongOffset says that a chunk leaves a gap, or has other bytes than those
	// that are stored. It comes as a *WrongOffset.
	ErrWrongOffset = errors.New("the chunk does not continue the upload")
)

// WrongOffset is the ErrWrongOffset that says where the upload goes on.
type WrongOffset struct{ Want int64 }

func (e *WrongOffset) Error() string {
	return fmt.Sprintf("%v: it goes on at %d", ErrWrongOffset, e.Want)
}

// Is makes a WrongOffset an ErrWrongOffset.
func (e *WrongOffset) Is(target error) bool { return target == ErrWrongOffset }

// A NewUpload is what CreateUpload makes an Upload of.
type NewUpload struct {
	UserID   int64
	ChatID   int64         // 0: none
	Format   string        // as it was said
	Lifetime time.Duration // until it expires
	Most     int64         // how many of the user's may be open, with this one
	Key      *IdempotencyKey
}

// CreateUpload adds an empty upload. A call that repeats a key returns the
// upload as it was created first, and true; with another body, ErrKeyReused.
// ErrTooManyUploads: of any number of callers no more get in than may. Errors as
// of Chat, where there is one; ErrNotFound too if there is no such user.
func (d *DB) CreateUpload(ctx context.Context, n NewUpload) (Upload, bool, error) {
	for range raceAttempts {
		used, err := d.usedKey(ctx, n.UserID, n.Key)
		if err != nil {
			return Upload{}, false, err
		}
		if used != nil {
			var first Upload
			if err := json.Unmarshal([]byte(used.Answer), &first); err != nil {
				return Upload{}, false, fmt.Errorf("stored answer of %s: %w", used.Route, err)
			}
			return first, true, nil
		}
		u, err := d.insertUpload(ctx, n)
		if _, raced := uniqueViolation(err); !raced {
			return u, false, withoutParent(err)
		}
	}
	return Upload{}, false, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

// insertUpload adds the upload, and the key with it. If the key is there, it is a
// unique violation. It locks the chat before the user, as all do, and the user so
// that nobody else counts at the same time.
func (d *DB) insertUpload(ctx context.Context, n NewUpload) (Upload, error) {
	var u Upload
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		now := d.now()
		u = Upload{
			UserID: n.UserID, ChatID: n.ChatID, Format: n.Format,
			Fence: rand.Int64N(1 << 53), CreatedAt: now, ExpiresAt: now.Add(n.Lifetime),
		}
		if n.ChatID != 0 {
			if err := d.holdChat(ctx, tx, n.UserID, n.ChatID); err != nil {
				return err
			}
		}
		if _, err := d.holdUser(ctx, tx, n.UserID, "NO KEY UPDATE"); err != nil {
			return err
		}
		var open int64
		err := tx.NewRaw("SELECT count(*) FROM uploads WHERE user_id = ? AND NOT ended AND expires_at > ?",
			n.UserID, d.clock(0)).Scan(ctx, &open)
		switch {
		case err != nil:
			return err
		case open >= n.Most:
			return ErrTooManyUploads
		}
		if _, err := tx.NewInsert().Model(&u).Exec(ctx); err != nil || n.Key == nil {
			return err
		}
		answer, err := json.Marshal(u)
		if err != nil {
			return err
		}
		row := newKey(n.UserID, n.Key, now)
		row.Answer = string(answer)
		_, err = tx.NewInsert().Model(&row).Exec(ctx)
		return err
	})
	return u, err
}

// holdChat keeps a chat of the user from being deleted until the transaction
// ends. Errors as of Chat.
func (d *DB) holdChat(ctx context.Context, tx bun.Tx, userID, chatID int64) error {
	q := tx.NewSelect().Model((*Chat)(nil)).Column("user_id").Where("id = ?", chatID)
	if d.dialect == Postgres {
		q = q.For("KEY SHARE")
	}
	var owner int64
	if err := q.Scan(ctx, &owner); err != nil {
		return err
	}
	if owner != userID {
		return ErrForbidden
	}
	return nil
}

// Upload returns an upload; ErrNotFound, also if it has expired, or ErrForbidden
// if it is somebody else's.
func (d *DB) Upload(ctx context.Context, userID, uploadID int64) (Upload, error) {
	var u Upload
	err := d.read.NewRaw("SELECT uploads.*, ?0 AS orphaned FROM uploads WHERE id = ?1 AND expires_at > ?2",
		d.ownerless(), uploadID, d.clock(0)).Scan(ctx, &u)
	if err != nil {
		return Upload{}, classify(ctx, err)
	}
	if u.UserID != userID {
		return Upload{}, ErrForbidden
	}
	return u, nil
}

// DeleteUpload deletes an upload. Errors as of Upload.
func (d *DB) DeleteUpload(ctx context.Context, userID, uploadID int64) error {
	res, err := d.write.NewRaw("DELETE FROM uploads WHERE id = ? AND user_id = ? AND expires_at > ?",
		uploadID, userID, d.clock(0)).Exec(ctx)
	if err = classify(ctx, changed(res, err)); !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, why := d.Upload(ctx, userID, uploadID); why != nil {
		return why
	}
	return err
}

// A NewChunk is the next bytes of an upload, one at least.
type NewChunk struct {
	UserID   int64
	UploadID int64
	Offset   int64 // of the first
	Data     []byte
	Format   string // of the recording, where it was told by its first bytes; "": not known yet
}

// AppendChunk adds bytes to an upload, and returns it as it is then. Bytes that
// are stored already change nothing, and are no error: of several callers with
// the same ones each gets the same. A *WrongOffset if they would leave a gap, or
// differ; ErrUploadWhole if nothing may follow. Errors as of Upload.
func (d *DB) AppendChunk(ctx context.Context, c NewChunk) (Upload, error) {
	for range raceAttempts {
		var u Upload
		err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
			u = Upload{}
			// One conditional statement. The others wait for the row's lock, and then
			// its size no longer matches.
			err := tx.NewRaw(`UPDATE uploads SET size = size + ?0,
					format = CASE WHEN ?1 = '' THEN format ELSE ?1 END, sniffed = sniffed OR ?1 <> ''
				WHERE id = ?2 AND user_id = ?3 AND size = ?4 AND NOT whole AND NOT ended AND expires_at > ?5 RETURNING *`,
				len(c.Data), c.Format, c.UploadID, c.UserID, c.Offset, d.clock(0)).Scan(ctx, &u)
			if err != nil {
				return err
			}
			return d.storeChunk(ctx, tx, c)
		})
		if !errors.Is(err, ErrNotFound) {
			return u, err
		}
		u, err = d.Upload(ctx, c.UserID, c.UploadID)
		switch {
		case err != nil:
			return Upload{}, err
		case c.Offset == u.Size && !u.Whole && !u.Ended:
			continue // what was in the way is gone
		case u.Ended:
			return u, ErrUploadWhole
		}
		return d.compareChunk(ctx, u, c)
	}
	return Upload{}, fmt.Errorf("%w: %w", ErrUnavailable, errRaced)
}

const (
	// storedChunk is the largest row in bytes: what is read at a time.
	storedChunk = 256 << 10
	// joinedChunk is up to where small chunks share a row. Whatever is added to a
	// row writes all of it again.
	joinedChunk = 16 << 10
)

// storeChunk stores the bytes of c behind those that are there. They are bound:
// in a statement's text they would be twice as long, and read again.
func (d *DB) storeChunk(ctx context.Context, tx bun.Tx, c NewChunk) error {
	join := `UPDATE upload_chunks SET data = data || $3, size = size + $4
		WHERE upload_id = $1 AND start = (SELECT max(start) FROM upload_chunks WHERE upload_id = $1) AND size + $4 <= $2`
	if d.dialect == SQLite { // where || makes a text
		join = `UPDATE upload_chunks SET data = CAST(data || ?3 AS BLOB), size = size + ?4
			WHERE upload_id = ?1 AND start = (SELECT max(start) FROM upload_chunks WHERE upload_id = ?1) AND size + ?4 <= ?2`
	}
	if c.Offset > 0 && len(c.Data) < joinedChunk {
		res, err := tx.Tx.ExecContext(ctx, join, c.UploadID, joinedChunk, c.Data, len(c.Data))
		if err := changed(res, err); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	start := c.Offset
	for data := range slices.Chunk(c.Data, storedChunk) {
		_, err := tx.Tx.ExecContext(ctx, "INSERT INTO upload_chunks (upload_id, start, size, data) VALUES ($1, $2, $3, $4)",
			c.UploadID, start, len(data), data)
		if err != nil {
			return err
		}
		start += int64(len(data))
	}
	return nil
}

// compareChunk returns u if it has the bytes of c, and else why they cannot be
// added.
func (d *DB) compareChunk(ctx context.Context, u Upload, c NewChunk) (Upload, error) {
	refusal := error(&WrongOffset{Want: u.Size})
	if u.Whole {
		refusal = ErrUploadWhole
	}
	if c.Offset+int64(len(c.Data)) > u.Size {
		return u, refusal
	}
	for at := 0; at < len(c.Data); {
		stored, err := d.uploadBytes(ctx, u.ID, c.Offset+int64(at))
		if err != nil {
			return Upload{}, err
		}
		n := min(len(stored), len(c.Data)-at)
		if n == 0 || !bytes.Equal(stored[:n], c.Data[at:at+n]) {
			return u, refusal
		}
		at += n
	}
	return u, nil
}

// UploadHead returns the first bytes of an upload: all that there are of one
// smaller than a row.
func (d *DB) UploadHead(ctx context.Context, uploadID int64) ([]byte, error) {
	return d.uploadBytes(ctx, uploadID, 0)
}

// chunkAt is the condition on upload_chunks of the row that holds the byte ?1 of
// the upload ?0.
const chunkAt = `upload_chunks.upload_id = ?0 AND start + upload_chunks.size > ?1
	AND start = (SELECT max(start) FROM upload_chunks WHERE upload_id = ?0 AND start <= ?1)`

// uploadBytes returns bytes of an upload from an offset on, as many as lie in one
// row; none at the end.
func (d *DB) uploadBytes(ctx context.Context, uploadID, from int64) ([]byte, error) {
	var data []byte
	err := d.read.NewRaw("SELECT substr(data, CAST(?1 - start + 1 AS integer)) FROM upload_chunks WHERE "+chunkAt,
		uploadID, from).Scan(ctx, &data)
	if isNoRows(err) {
		return nil, nil
	}
	return data, classify(ctx, err)
}
