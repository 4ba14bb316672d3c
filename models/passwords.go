package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

// SetPasswordHash replaces the hash of the same password by a better one, if it
// is still old: ErrNotFound if another one was set since, or the account is
// gone.
func (d *DB) SetPasswordHash(ctx context.Context, userID int64, old, hash string) error {
	res, err := d.write.NewUpdate().Model((*User)(nil)).Set("password_hash = ?", hash).
		Where("id = ? AND password_hash = ?", userID, old).Exec(ctx)
	return classify(ctx, changed(res, err))
}

// ChangePassword replaces the hash if it is still old, ends all sessions of the
// user but keepSID and returns their sids, withdraws what could reset the
// password, and tells the user by mail. ErrNotFound if another hash was set
// since, or the account is gone.
func (d *DB) ChangePassword(ctx context.Context, userID int64, old, hash, keepSID string, accessTTL time.Duration, by By) ([]string, error) {
	var sids []string
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewRaw("UPDATE users SET password_hash = ? WHERE id = ? AND password_hash = ?", hash, userID, old).Exec(ctx)
		if err := changed(res, err); err != nil {
			return err
		}
		sids, err = d.passwordChanged(ctx, tx, userID, keepSID, accessTTL, by, "password.changed")
		return err
	})
	if err != nil {
		return nil, err
	}
	return sids, nil
}

// passwordChanged does what follows from another password. The row of the user
// is held, so that nobody signs in by the former one meanwhile.
func (d *DB) passwordChanged(ctx context.Context, tx bun.Tx, userID int64, keepSID string, accessTTL time.Duration, by By, action string) ([]string, error) {
	sids, err := d.deleteSessions(ctx, tx, userID, keepSID)
	if err != nil {
		return nil, err
	}
	if err := d.withdrawReset(ctx, tx, userID); err != nil {
		return nil, err
	}
	if err := d.audit(ctx, tx, by, action, userID, ""); err != nil {
		return nil, err
	}
	if err := d.notify(ctx, tx, MailPasswordChanged, userID, by, nil); err != nil {
		return nil, err
	}
	return sids, d.revokeSessions(ctx, tx, sids, accessTTL)
}
