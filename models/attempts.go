package models

import (
	"context"

	"github.com/uptrace/bun"
)

// A Restart begins another attempt at a reply's text: what of it is the same,
// and where ids of earlier attempts still hold.
type Restart struct {
	MessageID   int64
	Fence       int    // of the owner that writes
	Attempt     int    // whose ids are sent from here on
	SharedBytes int64  // ids of earlier attempts up to here hold for this one too
	Text        string // as far as it is known
	Spoken      bool   // there is a Speech of it
}

// RestartReply stores a Restart, in place of what was saved of the text. Errors
// as of FinishReply.
func (d *DB) RestartReply(ctx context.Context, restart Restart) error {
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// Of what the text begins with, as much is counted as was before.
		res, err := tx.NewRaw(`UPDATE replies SET saved_bytes = ?0,
				counted_bytes = CASE WHEN counted_bytes < ?0 THEN counted_bytes ELSE ?0 END
			WHERE message_id = ?1 AND fence = ?2`, len(restart.Text), restart.MessageID, restart.Fence).Exec(ctx)
		if err := changed(res, err); err != nil {
			return err
		}
		_, err = tx.NewRaw("UPDATE messages SET attempt = ?, shared_bytes = ? WHERE id = ?",
			restart.Attempt, restart.SharedBytes, restart.MessageID).Exec(ctx)
		if err != nil {
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM reply_chunks WHERE message_id = ?", restart.MessageID).Exec(ctx); err != nil {
			return err
		}
		if restart.Spoken {
			if err := restartSpeech(ctx, tx, restart); err != nil {
				return err
			}
		}
		if restart.Text == "" {
			return nil
		}
		_, err = tx.NewRaw("INSERT INTO reply_chunks (message_id, start, text) VALUES (?, 0, ?)",
			restart.MessageID, restart.Text).Exec(ctx)
		return err
	})
	return d.whyNotReply(ctx, restart.MessageID, err)
}

// WasTakenOver reports whether a message that has ended had several owners, as far
// as what they have used is known.
func (d *DB) WasTakenOver(ctx context.Context, messageID int64) (taken bool, err error) {
	err = d.read.NewRaw("SELECT EXISTS (SELECT 1 FROM usage WHERE message_id = ? AND fence > 1)", messageID).Scan(ctx, &taken)
	return taken, classify(ctx, err)
}
