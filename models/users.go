package models

import (
	"context"
	"fmt"
	"time"

	"github.com/uptrace/bun"
)

// A User is an account.
type User struct {
	ID           int64  `bun:",pk,autoincrement"`
	Email        string // unique; the caller normalizes it, lower case included
	UserName     string
	PasswordHash string
	IsAdmin      bool
	DisabledAt   *time.Time
	CreatedAt    time.Time
}

// CreateUser adds an account and its first device session, and sets both their
// ids and what CreateSession sets. A CreatedAt of zero is the present.
// ErrUserExists if the address has an account.
func (d *DB) CreateUser(ctx context.Context, u *User, s *DeviceSession) error {
	u.CreatedAt = d.stamp(u.CreatedAt)
	var (
		user    User
		session DeviceSession
	)
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		user, session = *u, d.newSession(*s)
		if _, err := tx.NewInsert().Model(&user).Exec(ctx); err != nil {
			return err
		}
		session.UserID = user.ID
		_, err := tx.NewInsert().Model(&session).Exec(ctx)
		return err
	})
	if constraint, ok := uniqueViolation(err); ok && constraint == "users_email_key" {
		return ErrUserExists
	}
	if err != nil {
		return err
	}
	*u, *s = user, session
	return nil
}

// UserByEmail returns the account of an address, as it was normalized for
// CreateUser, or ErrNotFound.
func (d *DB) UserByEmail(ctx context.Context, email string) (User, error) {
	var u User
	err := d.read.NewSelect().Model(&u).Where("email = ?", email).Scan(ctx)
	return u, classify(ctx, err)
}

// User returns the account with that id, or ErrNotFound.
func (d *DB) User(ctx context.Context, id int64) (User, error) {
	var u User
	err := d.read.NewSelect().Model(&u).Where("id = ?", id).Scan(ctx)
	return u, classify(ctx, err)
}

// SetPasswordHash replaces the hash if it is still old: ErrNotFound if another
// one was set since, or the account is gone.
func (d *DB) SetPasswordHash(ctx context.Context, userID int64, old, hash string) error {
	res, err := d.write.NewUpdate().Model((*User)(nil)).Set("password_hash = ?", hash).
		Where("id = ? AND password_hash = ?", userID, old).Exec(ctx)
	return classify(ctx, changed(res, err))
}

// stamp is t as it is stored, or the present if it is zero.
func (d *DB) stamp(t time.Time) time.Time {
	if t.IsZero() {
		return d.now()
	}
	return t.UTC().Truncate(time.Microsecond)
}

// changed turns a statement that changed no row into ErrNotFound.
func changed(res interface{ RowsAffected() (int64, error) }, err error) error {
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		err = ErrNotFound
	}
	return err
}

// withoutParent turns a row that refers to one that is gone into ErrNotFound.
func withoutParent(err error) error {
	if foreignKeyViolation(err) {
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	return err
}
