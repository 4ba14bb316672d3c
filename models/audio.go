package models

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/uptrace/bun"
)

// A Voice is how a reply is spoken. The package does not know what is a voice, or
// a format.
type Voice struct {
	Name   string  // "": the service's choice
	Speed  float64 // 0: as the voice speaks
	Format string
}

// How far a Speech is.
const (
	SpeechRunning = "running" // there may be more of it
	SpeechDone    = "done"    // it is whole
	SpeechStopped = "stopped" // cut short by the user, or with its text
	SpeechFailed  = "failed"  // cut short by a fault
	SpeechExpired = "expired" // its audio is kept no more
)

// A Speech is a reply's text being spoken, or what was. It has an owner and a
// fence of its own, as of RunningReply: its text may end before, and be written by
// another replica.
type Speech struct {
	MessageID int64
	UserID    int64
	Voice
	Owner     string // the replica that has it spoken; "" if it was released
	Fence     int64  // of that owner, never 0
	Attempt   int    // of the text that it speaks
	Pieces    int    // of audio that are stored
	State     string
	StartedAt time.Time
}

// An AudioPiece is a part of a spoken reply, whole for whoever plays it.
type AudioPiece struct {
	MessageID int64
	Seq       int   // counts the pieces of a reply from 1 on
	Attempt   int   // of the text that it speaks
	Upto      int64 // it ends with that offset of the text, in bytes
	Data      []byte
}

// audioLifetime is how long audio is kept behind the end of its Speech.
const audioLifetime = time.Hour

// newFence is the fence of the owner of the speech that a turn begins; 0 for text
// alone. An owner who has not noticed a wipe has another one than whoever gets the
// same id after it.
func (v *Voice) newFence() int64 {
	if v == nil {
		return 0
	}
	return 1 + rand.Int64N(1<<52)
}

// beginSpeech stores that the reply of ex is to be spoken, unless it is text alone.
func (turn NewTurn) beginSpeech(ctx context.Context, tx bun.IDB, ex Exchange) error {
	if turn.Voice == nil {
		return nil
	}
	_, err := tx.NewRaw(`INSERT INTO speeches (message_id, name, speed, format, owner, fence, state, started_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?)`, ex.Reply.ID, turn.Voice.Name, turn.Voice.Speed, turn.Voice.Format,
		turn.Owner, ex.SpeechFence, SpeechRunning, ex.Reply.CreatedAt).Exec(ctx)
	return err
}

// AppendAudio stores the next piece of a speech for the owner with that fence, and
// does nothing if that owner has stored it before. ErrStaleOwner if the speech has
// another owner, has ended, or speaks another attempt at the text; ErrNotFound if
// the message is gone.
func (d *DB) AppendAudio(ctx context.Context, fence int64, p AudioPiece) error {
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// The lock of the speech's row is the fence, as in SaveTexts.
		res, err := tx.NewRaw(`UPDATE speeches SET pieces = ?0
			WHERE message_id = ?1 AND fence = ?2 AND attempt = ?3 AND pieces = ?0 - 1 AND state = ?4`,
			p.Seq, p.MessageID, fence, p.Attempt, SpeechRunning).Exec(ctx)
		if err := changed(res, err); err != nil {
			return err
		}
		_, err = tx.NewRaw("INSERT INTO reply_audio (message_id, seq, attempt, upto, data) VALUES (?, ?, ?, ?, ?)",
			p.MessageID, p.Seq, p.Attempt, p.Upto, p.Data).Exec(ctx)
		return err
	})
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	s, err := d.Speech(ctx, p.MessageID)
	if err != nil || s.Fence == fence && s.Attempt == p.Attempt && s.Pieces >= p.Seq && s.State == SpeechRunning {
		return err
	}
	return ErrStaleOwner
}

// Speech returns the speech of a message; ErrNotFound if it was never to be
// spoken, or is gone.
func (d *DB) Speech(ctx context.Context, messageID int64) (Speech, error) {
	var s Speech
	err := d.read.NewRaw(speeches+" WHERE s.message_id = ?", messageID).Scan(ctx, &s)
	return s, classify(ctx, err)
}

// speeches reads Speech.
const speeches = `SELECT s.message_id, chats.user_id, s.name, s.speed, s.format, s.owner, s.fence, s.attempt, s.pieces,
		s.state, s.started_at
	FROM speeches s JOIN messages m ON m.id = s.message_id JOIN chats ON chats.id = m.chat_id`

// Audio returns the pieces of a speech behind the one that is counted so, in
// order.
func (d *DB) Audio(ctx context.Context, messageID int64, after int) ([]AudioPiece, error) {
	var ps []AudioPiece
	err := d.read.NewRaw(`SELECT message_id, seq, attempt, upto, data FROM reply_audio
		WHERE message_id = ? AND seq > ? ORDER BY seq`, messageID, after).Scan(ctx, &ps)
	return ps, classify(ctx, err)
}

// EndSpeech stores how a speech has ended for the owner with that fence.
// ErrStaleOwner if it has another one, or ended before; ErrNotFound if the message
// is gone.
func (d *DB) EndSpeech(ctx context.Context, messageID, fence int64, state string) error {
	res, err := d.write.NewRaw(`UPDATE speeches SET state = ?, owner = '', ended_at = ?
		WHERE message_id = ? AND fence = ? AND state = ?`, state, d.now(), messageID, fence, SpeechRunning).Exec(ctx)
	return d.whyNotSpeech(ctx, messageID, classify(ctx, changed(res, err)))
}

// StopSpeech ends a speech as SpeechStopped, whoever owns it, who learns of it
// later. For one that has ended it does nothing.
func (d *DB) StopSpeech(ctx context.Context, messageID int64) error {
	_, err := d.write.NewRaw(stopSpeeches+" AND message_id = ?2", SpeechStopped, SpeechRunning, messageID, d.now()).Exec(ctx)
	return classify(ctx, err)
}

// stopSpeeches ends speeches in state ?1, as ?0, at ?3.
const stopSpeeches = "UPDATE speeches SET state = ?0, owner = '', fence = fence + 1, ended_at = ?3 WHERE state = ?1"

// RunningSpeeches returns the speeches that the database has under a replica's
// name, and some that nobody living owns, each the oldest first.
func (d *DB) RunningSpeeches(ctx context.Context, owner string, limit int) (own, orphaned []Speech, err error) {
	err = d.read.NewRaw(speeches+" WHERE s.state = ? AND s.owner = ? ORDER BY s.message_id",
		SpeechRunning, owner).Scan(ctx, &own)
	if err != nil {
		return nil, nil, classify(ctx, err)
	}
	err = d.read.NewRaw(speeches+` WHERE s.state = ?0 AND s.owner <> ?1
			AND NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = s.owner AND lease_until > ?2)
		ORDER BY s.message_id LIMIT ?3`, SpeechRunning, owner, d.clock(0), limit).Scan(ctx, &orphaned)
	return own, orphaned, classify(ctx, err)
}

// TakeSpeech makes owner the one that has a speech spoken, and returns its fence.
// It takes only what has that fence still, and no living owner but this very
// one: of several callers one gets it, the others ErrStaleOwner. ErrNotFound if the
// message is gone.
func (d *DB) TakeSpeech(ctx context.Context, messageID, fence int64, owner string) (int64, error) {
	res, err := d.write.NewRaw(`UPDATE speeches SET owner = ?0, fence = fence + 1
		WHERE message_id = ?1 AND fence = ?2 AND state = ?3 AND (speeches.owner = ?0
			OR NOT EXISTS (SELECT 1 FROM replicas WHERE replicas.id = speeches.owner AND lease_until > ?4))`,
		owner, messageID, fence, SpeechRunning, d.clock(0)).Exec(ctx)
	return fence + 1, d.whyNotSpeech(ctx, messageID, classify(ctx, changed(res, err)))
}

// ReleaseSpeech gives up a speech, for another replica to take at once. Errors as
// of EndSpeech.
func (d *DB) ReleaseSpeech(ctx context.Context, messageID, fence int64) error {
	res, err := d.write.NewRaw("UPDATE speeches SET owner = '' WHERE message_id = ? AND fence = ? AND state = ?",
		messageID, fence, SpeechRunning).Exec(ctx)
	return d.whyNotSpeech(ctx, messageID, classify(ctx, changed(res, err)))
}

// restartSpeech has a reply's speech go on with another attempt at its text: what
// it speaks of the text that is shared stays.
func restartSpeech(ctx context.Context, tx bun.Tx, restart Restart) error {
	for _, statement := range []string{
		// Holding the row comes first, to see what was appended before.
		"UPDATE speeches SET attempt = ?1 WHERE message_id = ?0",
		"DELETE FROM reply_audio WHERE message_id = ?0 AND upto > ?2",
		"UPDATE speeches SET pieces = (SELECT count(*) FROM reply_audio WHERE message_id = ?0) WHERE message_id = ?0",
	} {
		if _, err := tx.NewRaw(statement, restart.MessageID, restart.Attempt, restart.SharedBytes).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// whyNotSpeech is whyNotReply of a speech.
func (d *DB) whyNotSpeech(ctx context.Context, messageID int64, err error) error {
	if !errors.Is(err, ErrNotFound) {
		return err
	}
	if _, err := d.Speech(ctx, messageID); err != nil {
		return err
	}
	return ErrStaleOwner
}

// What PurgeExpired does with audio that is kept no more, of speeches that ended
// before ?0. Which pieces there were is kept.
const (
	purgeAudio = `DELETE FROM reply_audio WHERE message_id IN
		(SELECT message_id FROM speeches WHERE state IN ('done', 'stopped', 'failed') AND ended_at < ?0)`
	purgeSpeeches = "UPDATE speeches SET state = '" + SpeechExpired + "' WHERE state IN ('done', 'stopped', 'failed') AND ended_at < ?0"
)
