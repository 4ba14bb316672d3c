package models

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
)

// ErrLastAdmin says that without this user nobody would be left who administers.
var ErrLastAdmin = errors.New("the last administrator")

// A UserSummary is an account as an administrator sees it.
type UserSummary struct {
	User
	ChatCount    int64
	MessageCount int64
	DeviceAt     *time.Time // when a device that is signed in was last used
	ActiveAt     *time.Time // when a chat was last active
}

// LastSeenAt is the latest sign of the user, nil if there is none.
func (s *UserSummary) LastSeenAt() *time.Time {
	if s.DeviceAt == nil || s.ActiveAt != nil && s.ActiveAt.After(*s.DeviceAt) {
		return s.ActiveAt
	}
	return s.DeviceAt
}

// userSummaries reads UserSummary.
const userSummaries = `SELECT u.id, u.email, u.user_name, u.password_hash, u.is_admin, u.disabled_at, u.created_at,
		(SELECT count(*) FROM chats WHERE user_id = u.id) AS chat_count,
		(SELECT CAST(COALESCE(sum(message_count), 0) AS bigint) FROM chats WHERE user_id = u.id) AS message_count,
		(SELECT max(last_seen_at) FROM device_sessions WHERE user_id = u.id) AS device_at,
		(SELECT max(active_at) FROM chats WHERE user_id = u.id) AS active_at
	FROM users u`

// Users returns a page of the accounts whose address or name contains a text, in
// whatever case ("": of all), the latest first, and the cursor of the next page,
// empty at the end. SQLite knows no case but that of ASCII. ErrInvalidCursor.
func (d *DB) Users(ctx context.Context, containing string, p Page) ([]UserSummary, string, error) {
	limit := p.limit()
	before := int64(maxKey)
	if p.Cursor != "" {
		key, err := userList.key(p.Cursor, 1)
		if err != nil {
			return nil, "", err
		}
		before = key[0]
	}
	escape := strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`)
	pattern := "%" + escape.Replace(containing) + "%"
	var users []UserSummary
	err := d.read.NewRaw(userSummaries+` WHERE u.id < ?0
			AND (u.email LIKE ?1 ESCAPE '\' OR lower(u.user_name) LIKE ?1 ESCAPE '\' OR u.user_name LIKE ?2 ESCAPE '\')
		ORDER BY u.id DESC LIMIT ?3`, before, strings.ToLower(pattern), pattern, limit+1).Scan(ctx, &users)
	if err != nil {
		return nil, "", classify(ctx, err)
	}
	users, next := cut(users, limit, func(u UserSummary) string { return userList.cursor(u.ID) })
	return users, next, nil
}

// UserSummary returns one of them, or ErrNotFound.
func (d *DB) UserSummary(ctx context.Context, userID int64) (UserSummary, error) {
	var u UserSummary
	err := d.read.NewRaw(userSummaries+" WHERE u.id = ?", userID).Scan(ctx, &u)
	return u, classify(ctx, err)
}

// A UserState is what an administrator changes about an account; nil leaves it
// as it is.
type UserState struct {
	Disabled *bool
	IsAdmin  *bool
}

// SetUser changes the state of an account. Who is disabled or demoted is signed
// out everywhere: the sids that have ended are returned. ErrNotFound;
// ErrLastAdmin if nobody else administers who is not disabled.
func (d *DB) SetUser(ctx context.Context, userID int64, state UserState, accessTTL time.Duration, by By) ([]string, error) {
	var sids []string
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		sids = nil
		last, err := d.holdAdmins(ctx, tx, userID)
		if err != nil {
			return err
		}
		u, err := d.holdUser(ctx, tx, userID, "NO KEY UPDATE")
		if err != nil {
			return err
		}
		actions := state.apply(&u, d.now())
		if len(actions) == 0 {
			return nil
		}
		out := slices.Contains(actions, accountDisabled) || slices.Contains(actions, accountDemoted)
		if out && last {
			return ErrLastAdmin
		}
		for _, action := range actions {
			if err := d.audit(ctx, tx, by, action, userID, ""); err != nil {
				return err
			}
		}
		if _, err := tx.NewUpdate().Model(&u).Column("is_admin", "disabled_at").WherePK().Exec(ctx); err != nil {
			return err
		}
		if !out {
			return nil
		}
		if sids, err = d.deleteSessions(ctx, tx, userID, ""); err != nil {
			return err
		}
		return d.revokeSessions(ctx, tx, sids, accessTTL)
	})
	if err != nil {
		return nil, err
	}
	return sids, nil
}

// What the audit calls the changes of SetUser.
const (
	accountDisabled = "account.disabled"
	accountEnabled  = "account.enabled"
	accountPromoted = "account.promoted"
	accountDemoted  = "account.demoted"
)

// apply changes u and returns what that is called in the audit.
func (s UserState) apply(u *User, now time.Time) (actions []string) {
	if s.Disabled != nil && *s.Disabled != (u.DisabledAt != nil) {
		if *s.Disabled {
			u.DisabledAt = &now
			actions = append(actions, accountDisabled)
		} else {
			u.DisabledAt = nil
			actions = append(actions, accountEnabled)
		}
	}
	if s.IsAdmin != nil && *s.IsAdmin != u.IsAdmin {
		u.IsAdmin = *s.IsAdmin
		if u.IsAdmin {
			actions = append(actions, accountPromoted)
		} else {
			actions = append(actions, accountDemoted)
		}
	}
	return actions
}

// administers is the condition on users that they administer.
const administers = "is_admin AND disabled_at IS NULL"

// holdAdmins keeps those who administer from being changed until the end of the
// transaction, and says if a user is the only one of them. It comes before the
// user itself is held, and takes their rows in the order of their ids, so that
// two who demote one another wait instead of both succeeding: the second finds
// itself as the first one left it.
func (d *DB) holdAdmins(ctx context.Context, tx bun.Tx, userID int64) (last bool, err error) {
	var admins []int64
	q := tx.NewSelect().Model((*User)(nil)).Column("id").Where(administers).Order("id")
	if d.dialect == Postgres {
		q = q.For("NO KEY UPDATE")
	}
	err = q.Scan(ctx, &admins)
	return len(admins) == 1 && admins[0] == userID, err
}

// HasAdmin says if anybody administers who is not disabled.
func (d *DB) HasAdmin(ctx context.Context) (bool, error) {
	has, err := d.read.NewSelect().Model((*User)(nil)).Where(administers).Exists(ctx)
	return has, classify(ctx, err)
}

// MakeAdmin makes u, of which address, name and password hash count, an
// administrator, and sets its id. The address may have an account: whoever made
// it need not be who is meant, so it gets this password and is signed out
// everywhere. With onlyFirst nothing is done where somebody administers: of any
// number of callers one makes an administrator. It says if one was made.
func (d *DB) MakeAdmin(ctx context.Context, u *User, onlyFirst bool, accessTTL time.Duration, by By) (bool, error) {
	var (
		made bool
		user User
	)
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		made, user = false, User{}
		if d.dialect == Postgres {
			// There may be no row to hold.
			if _, err := tx.NewRaw("SELECT pg_advisory_xact_lock(?)", adminsLock).Exec(ctx); err != nil {
				return err
			}
		}
		if onlyFirst {
			has, err := tx.NewSelect().Model((*User)(nil)).Where(administers).Exists(ctx)
			if err != nil || has {
				return err
			}
		}
		made = true
		_, err := tx.NewRaw(`INSERT INTO users (email, user_name, password_hash, is_admin, created_at) VALUES (?, ?, ?, FALSE, ?)
			ON CONFLICT (email) DO NOTHING`, u.Email, u.UserName, u.PasswordHash, d.now()).Exec(ctx)
		if err != nil {
			return err
		}
		held := tx.NewSelect().Model(&user).Where("email = ?", u.Email)
		if d.dialect == Postgres {
			held = held.For("NO KEY UPDATE")
		}
		if err := held.Scan(ctx); err != nil {
			return err
		}
		return d.promote(ctx, tx, &user, u.PasswordHash, accessTTL, by)
	})
	if err != nil || !made {
		return false, err
	}
	*u = user
	return true, nil
}

// adminsLock is the advisory lock of those who make administrators without
// being one: "admins" in bytes.
const adminsLock int64 = 0x61646d696e73

// promote makes u, which is held, an administrator with that password, who is
// signed in nowhere.
func (d *DB) promote(ctx context.Context, tx bun.Tx, u *User, passwordHash string, accessTTL time.Duration, by By) error {
	u.PasswordHash, u.IsAdmin, u.DisabledAt = passwordHash, true, nil
	_, err := tx.NewUpdate().Model(u).Column("password_hash", "is_admin", "disabled_at").WherePK().Exec(ctx)
	if err != nil {
		return err
	}
	if err := d.withdrawReset(ctx, tx, u.ID); err != nil {
		return err
	}
	sids, err := d.deleteSessions(ctx, tx, u.ID, "")
	if err != nil {
		return err
	}
	if err := d.audit(ctx, tx, by, accountPromoted, u.ID, "by the operator, with a password"); err != nil {
		return err
	}
	return d.revokeSessions(ctx, tx, sids, accessTTL)
}
