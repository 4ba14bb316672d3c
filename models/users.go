package models

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

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
func (d *DB) CreateUser(ctx context.Context, u *User, s *DeviceSession, by By) error {
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
		if err := d.insertSession(ctx, tx, &session); err != nil {
			return err
		}
		return d.audit(ctx, tx, by, "account.created", user.ID, "")
	})
	if err != nil {
		return userExists(err)
	}
	*u, *s = user, session
	return nil
}

// userExists turns a second account of an address into ErrUserExists.
func userExists(err error) error {
	if constraint, ok := uniqueViolation(err); ok && constraint == "users_email_key" {
		return ErrUserExists
	}
	return err
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

// A UserChange is what becomes different about an account; nil leaves a field as
// it is.
type UserChange struct {
	UserName *string
	Email    *string // normalized as for CreateUser
	// PasswordHash is the one that the current password was checked against.
	// Only with an Email is it asked for.
	PasswordHash string
}

// UpdateUser changes an account. Another address withdraws what could reset the
// password, and is told to the former one by mail. ErrUserExists if somebody
// else has it; ErrNotFound if the account is gone, or the password was changed
// since it was checked.
func (d *DB) UpdateUser(ctx context.Context, userID int64, change UserChange, by By) (User, error) {
	var u User
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		lock := "NO KEY UPDATE"
		if change.Email != nil {
			lock = "UPDATE" // an address is a key: PostgreSQL needs the stronger lock to change it
		}
		if u, err = d.holdUser(ctx, tx, userID, lock); err != nil {
			return err
		}
		if change.UserName != nil {
			u.UserName = *change.UserName
		}
		if change.Email != nil && u.PasswordHash != change.PasswordHash {
			return ErrNotFound
		}
		if change.Email != nil && u.Email != *change.Email {
			if err := d.emailChanged(ctx, tx, userID, *change.Email, by); err != nil {
				return err
			}
			u.Email = *change.Email
		}
		_, err = tx.NewUpdate().Model(&u).Column("user_name", "email").WherePK().Exec(ctx)
		return err
	})
	if err != nil {
		return User{}, userExists(err)
	}
	return u, nil
}

// emailChanged does what follows from another address, before it is stored: so
// the mail goes to the former one, and the audit names it.
func (d *DB) emailChanged(ctx context.Context, tx bun.Tx, userID int64, email string, by By) error {
	if err := d.withdrawReset(ctx, tx, userID); err != nil {
		return err
	}
	if err := d.audit(ctx, tx, by, "email.changed", userID, "to "+maskEmail(email)); err != nil {
		return err
	}
	return d.notify(ctx, tx, MailEmailChanged, userID, by, map[string]string{"new_email": maskEmail(email)})
}

// maskEmail leaves enough of an address for its owner to know it by: the first
// character and the domain.
func maskEmail(email string) string {
	at := strings.LastIndexByte(email, '@')
	if at < 0 {
		return ellipsis
	}
	_, first := utf8.DecodeRuneInString(email[:at])
	return email[:first] + ellipsis + email[at:]
}

// holdUser returns a user and keeps others from changing it until the end of the
// transaction; ErrNotFound. lock is PostgreSQL's word for how: UPDATE also keeps
// rows from referring to it. All who change an account hold it before its
// sessions, its reset and its mails, and after its chats.
func (d *DB) holdUser(ctx context.Context, tx bun.Tx, userID int64, lock string) (User, error) {
	var u User
	find := "SELECT * FROM users WHERE id = ?"
	if d.dialect == Postgres {
		find += " FOR " + lock
	}
	err := d.scan(ctx, tx, &u, find, userID)
	if isNoRows(err) {
		return User{}, ErrNotFound
	}
	return u, err
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
