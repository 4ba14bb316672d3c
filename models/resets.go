package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

// passwordReset is the one token by which a user can set another password.
type passwordReset struct {
	UserID    int64 `bun:",pk"`
	TokenHash string
	CreatedAt time.Time
	ExpiresAt time.Time
}

// RequestReset puts a MailResetPassword into the outbox, in the place of one
// that waits there, if the address has an account that is not disabled. By the
// same statements it does nothing but write into the audit if not: neither what
// it returns nor how long it takes tells the two apart.
func (d *DB) RequestReset(ctx context.Context, email string, by By) error {
	return d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// Requests for one user come one after the other, so that one mail waits.
		var userID int64
		account := tx.NewSelect().Model((*User)(nil)).Column("id").Where("email = ? AND disabled_at IS NULL", email)
		if d.dialect == Postgres {
			account = account.For("NO KEY UPDATE")
		}
		if err := account.Scan(ctx, &userID); err != nil && !isNoRows(err) {
			return err
		}
		if err := d.withdrawResetMail(ctx, tx, userID); err != nil {
			return err
		}
		if err := d.notify(ctx, tx, MailResetPassword, userID, by, nil); err != nil {
			return err
		}
		return d.audit(ctx, tx, by, "password.reset_requested", userID, "")
	})
}

// SetReset makes a token the one by which the user can set another password,
// until it expires. It is called while the mail that will tell the token is
// being sent, so that no secret is ever stored. ErrNotFound if no
// MailResetPassword for the user is in the outbox: it was withdrawn, because
// the password or the address was changed, or the user is gone.
func (d *DB) SetReset(ctx context.Context, userID int64, tokenHash string, expires time.Time) error {
	return d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// A change of the password or the address holds this row, and the next
		// statement sees what it has withdrawn.
		if _, err := d.holdUser(ctx, tx, userID, "NO KEY UPDATE"); err != nil {
			return err
		}
		res, err := tx.NewRaw(`INSERT INTO password_resets (user_id, token_hash, created_at, expires_at)
			SELECT ?0, ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM mails WHERE user_id = ?0 AND kind = ?4)
			ON CONFLICT (user_id) DO UPDATE
			SET token_hash = EXCLUDED.token_hash, created_at = EXCLUDED.created_at, expires_at = EXCLUDED.expires_at`,
			userID, tokenHash, d.now(), d.stamp(expires), MailResetPassword).Exec(ctx)
		return changed(res, err)
	})
}

// Reset returns the user whose token it is, and uses nothing up. ErrNotFound if
// there is no such token, or it has expired, or the account is disabled.
func (d *DB) Reset(ctx context.Context, tokenHash string, now time.Time) (User, error) {
	var u User
	err := d.read.NewSelect().Model(&u).Join("JOIN password_resets ON user_id = id").
		Where("token_hash = ? AND expires_at > ? AND disabled_at IS NULL", tokenHash, d.stamp(now)).Scan(ctx)
	return u, classify(ctx, err)
}

// UseReset uses a token up and sets the hash of the password: of several callers
// one does, the others get ErrNotFound, as of Reset. It ends all sessions of the
// user, returns their sids, and tells the user by mail.
func (d *DB) UseReset(ctx context.Context, tokenHash, hash string, now time.Time, accessTTL time.Duration, by By) (int64, []string, error) {
	var (
		userID int64
		sids   []string
	)
	now = d.stamp(now)
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		userID, sids = 0, nil
		// The user's row is held first, as by all who change an account. What
		// decides is the token's row, which one of those who wait here deletes.
		owner := tx.NewSelect().Model((*User)(nil)).Column("id").
			Where("id = (SELECT user_id FROM password_resets WHERE token_hash = ?) AND disabled_at IS NULL", tokenHash)
		if d.dialect == Postgres {
			owner = owner.For("NO KEY UPDATE")
		}
		if err := owner.Scan(ctx, &userID); err != nil {
			return err
		}
		res, err := tx.NewDelete().Model((*passwordReset)(nil)).
			Where("user_id = ? AND token_hash = ? AND expires_at > ?", userID, tokenHash, now).Exec(ctx)
		if err := changed(res, err); err != nil {
			return err
		}
		if _, err := tx.NewRaw("UPDATE users SET password_hash = ? WHERE id = ?", hash, userID).Exec(ctx); err != nil {
			return err
		}
		sids, err = d.passwordChanged(ctx, tx, userID, "", accessTTL, by, "password.reset")
		return err
	})
	if err != nil {
		return 0, nil, err
	}
	return userID, sids, nil
}

// withdrawReset ends all by which the user could set another password without
// the present one. The user's row is held.
func (d *DB) withdrawReset(ctx context.Context, tx bun.Tx, userID int64) error {
	if _, err := tx.NewRaw("DELETE FROM password_resets WHERE user_id = ?", userID).Exec(ctx); err != nil {
		return err
	}
	return d.withdrawResetMail(ctx, tx, userID)
}

func (d *DB) withdrawResetMail(ctx context.Context, tx bun.Tx, userID int64) error {
	_, err := tx.NewRaw("DELETE FROM mails WHERE user_id = ? AND kind = ?", userID, MailResetPassword).Exec(ctx)
	return err
}
