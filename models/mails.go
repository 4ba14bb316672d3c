package models

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// What a Mail is about, as Mail.Kind says it, and what its Data holds beside
// "ip", the address from which that was done ("" if it is not known).
const (
	MailResetPassword   = "reset_password"   // nothing: the token is made when the mail is sent
	MailPasswordChanged = "password_changed" // nothing
	MailEmailChanged    = "email_changed"    // "new_email", masked; it goes to the former address
	MailSessionReused   = "session_reused"   // "device", the name of the one that was signed out
)

// A Mail waits in the outbox. It holds no secret.
type Mail struct {
	ID        int64 `bun:",pk,autoincrement"`
	Kind      string
	UserID    int64 `bun:",nullzero"`
	Recipient string
	Data      map[string]string
	Attempts  int // how often it was claimed, this time too
	CreatedAt time.Time
}

// ClaimMails returns mails that are due, limit at the most, the oldest first,
// and leaves each to this caller for the lease: of several callers one gets it.
// The caller sends it and then says MailSent, MailFailed or DropMail; if it says
// nothing the mail is due again when the lease is over.
func (d *DB) ClaimMails(ctx context.Context, limit int, lease time.Duration) ([]Mail, error) {
	var (
		mails []Mail
		now   = d.clock(0)
		skip  = ""
	)
	if d.dialect == Postgres {
		// A clock that stands still during the statement can be looked up in an index.
		now, skip = bun.SafeQuery("statement_timestamp()"), "FOR UPDATE SKIP LOCKED"
	}
	// MATERIALIZED, so that no plan takes the LIMIT more than once.
	err := d.write.NewRaw(`
		WITH due AS MATERIALIZED (
			SELECT id FROM mails WHERE next_at <= ? ORDER BY next_at LIMIT ? `+skip+`)
		UPDATE mails SET attempts = attempts + 1, next_at = ? WHERE id IN (SELECT id FROM due)
		RETURNING id, kind, user_id, recipient, data, attempts, created_at`,
		now, limit, d.clock(lease)).Scan(ctx, &mails)
	if err != nil {
		return nil, classify(ctx, err)
	}
	slices.SortFunc(mails, func(a, b Mail) int { return cmp.Compare(a.ID, b.ID) })
	return mails, nil
}

// MailSent takes a mail out of the outbox. An unknown id is no error: the mail
// was withdrawn while it was sent.
func (d *DB) MailSent(ctx context.Context, id int64) error {
	_, err := d.write.NewDelete().Model((*Mail)(nil)).Where("id = ?", id).Exec(ctx)
	return classify(ctx, err)
}

// maxMailError is how much is kept of why a mail was not sent, in bytes.
const maxMailError = 500

// MailFailed notes why a mail was not sent and makes it due again after retryIn.
// An unknown id is no error.
func (d *DB) MailFailed(ctx context.Context, id int64, retryIn time.Duration, reason string) error {
	reason = reason[:min(len(reason), maxMailError)]
	reason = strings.ReplaceAll(strings.ToValidUTF8(reason, ""), "\x00", "")
	_, err := d.write.NewRaw("UPDATE mails SET next_at = ?, last_error = ? WHERE id = ?", d.clock(retryIn), reason, id).Exec(ctx)
	return classify(ctx, err)
}

// DropMail gives a mail up, and writes into the audit that its user never got
// it. An unknown id is no error.
func (d *DB) DropMail(ctx context.Context, id int64) error {
	return d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		var m Mail
		err := tx.NewRaw("DELETE FROM mails WHERE id = ? RETURNING kind, user_id", id).Scan(ctx, &m)
		if isNoRows(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return d.audit(ctx, tx, By{}, "mail.dropped", m.UserID, m.Kind)
	})
}

// MailsWaiting is how many mails are in the outbox.
func (d *DB) MailsWaiting(ctx context.Context) (int64, error) {
	var n int64
	err := d.read.NewRaw("SELECT count(*) FROM mails").Scan(ctx, &n)
	return n, classify(ctx, err)
}

// notify puts a mail to the present address of a user into the outbox, due at
// once; none if there is no such user.
func (d *DB) notify(ctx context.Context, tx bun.Tx, kind string, userID int64, by By, data map[string]string) error {
	all := map[string]string{"ip": by.IP}
	maps.Copy(all, data)
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	_, err = tx.NewRaw(`INSERT INTO mails (kind, user_id, recipient, data, next_at, created_at)
		SELECT ?, id, email, ?, ?, ? FROM users WHERE id = ?`,
		kind, string(text), d.clock(0), d.now(), userID).Exec(ctx)
	return err
}
