package models

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/schema"
)

// A wipe takes two steps, since it gives the ids of users and messages out anew.
//
// SignOutAll comes first: no token is valid, and every reply is asked to end. Then
// there has to be a pause. A token that a clock which is ahead has dated after
// the first step is refused by its date, and so would be one that is issued too
// soon after the second; and who still writes a reply must have noticed, so that
// nothing is written into another one of the same id.
//
// DeleteAllUsers comes then. Tokens of those who have signed in meanwhile are
// refused one by one, by the random name of their session: no clock is asked.

// clockMargin is how far the clock of a replica may be ahead for SignOutAll to
// refuse what it has issued.
const clockMargin = 2 * time.Second

// WipePause is how long the pause has to be: time for clocks that differ, and for
// replicas to read what was written.
const WipePause = clockMargin + time.Second

// wipeTimeout bounds each of the steps.
const wipeTimeout = time.Minute

// SignOutAll ends all device sessions, revokes all access tokens, asks for a stop
// of all replies, and ends what is spoken of them: it returns the revocation and
// the replies' ids.
func (d *DB) SignOutAll(ctx context.Context, accessTTL time.Duration, by By) (Revocation, []int64, error) {
	ctx, cancel := context.WithTimeout(ctx, wipeTimeout)
	defer cancel()
	var (
		all     Revocation
		running []int64
	)
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		running = nil
		err := tx.NewRaw("UPDATE replies SET stop_requested_at = COALESCE(stop_requested_at, ?) RETURNING message_id",
			d.clock(0)).Scan(ctx, &running)
		if err != nil {
			return err
		}
		var spoken []int64
		err = tx.NewRaw(stopSpeeches+" RETURNING message_id", SpeechStopped, SpeechRunning, nil, d.now()).Scan(ctx, &spoken)
		if err != nil {
			return err
		}
		running = append(running, spoken...)
		if err := d.audit(ctx, tx, by, "sessions.ended", 0, "of all users"); err != nil {
			return err
		}
		if err := d.empty(ctx, tx, "device_sessions"); err != nil {
			return err
		}
		rs := []Revocation{{RevokedAt: d.now().Add(clockMargin)}}
		err = d.revoke(ctx, tx, accessTTL, rs...)
		all = rs[0]
		return err
	})
	if err != nil {
		return Revocation{}, nil, err
	}
	slices.Sort(running)
	return all, slices.Compact(running), nil
}

// wiped are the tables that DeleteAllUsers empties, in the order in which writers
// lock them. Whatever else refers to one of them is emptied too. mails has no
// part in it: an id of a mail that is being sent must not be given out again.
var wiped = []string{
	"chats", "replies", "messages", "reply_chunks", "speeches", "reply_audio", "idempotency_keys", "usage", "usage_days", "user_events",
	"uploads", "upload_chunks", "device_sessions", "password_resets", "stream_counts", "imported_chats", "imported_users", "imports", "search_queue", "users",
}

// DeleteAllUsers deletes all accounts, administrators too, with all that belongs
// to them, and has ids begin at 1 again. The audit stays. It returns what
// others must forget.
func (d *DB) DeleteAllUsers(ctx context.Context, accessTTL time.Duration, by By) (Deleted, error) {
	ctx, cancel := context.WithTimeout(ctx, wipeTimeout)
	defer cancel()
	var deleted Deleted
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		deleted = Deleted{}
		if d.dialect == Postgres {
			// Then nothing comes between the statements.
			if _, err := tx.NewRaw("LOCK TABLE ? IN ACCESS EXCLUSIVE MODE", names(wiped)).Exec(ctx); err != nil {
				return err
			}
		}
		if err := tx.NewRaw("SELECT sid FROM device_sessions ORDER BY sid").Scan(ctx, &deleted.SIDs); err != nil {
			return err
		}
		if err := tx.NewRaw("SELECT message_id FROM replies ORDER BY message_id").Scan(ctx, &deleted.Running); err != nil {
			return err
		}
		var users int64
		if err := tx.NewRaw("SELECT count(*) FROM users").Scan(ctx, &users); err != nil {
			return err
		}
		if err := d.audit(ctx, tx, by, "users.wiped", 0, fmt.Sprintf("accounts: %d", users)); err != nil {
			return err
		}
		if err := d.empty(ctx, tx, wiped...); err != nil {
			return err
		}
		if _, err := tx.NewRaw("DELETE FROM mails").Exec(ctx); err != nil {
			return err
		}
		return d.revokeSessions(ctx, tx, deleted.SIDs, accessTTL)
	})
	if err != nil {
		return Deleted{}, err
	}
	return deleted, nil
}

// empty deletes all rows of tables, and of those that refer to them, and has
// their ids begin at 1.
func (d *DB) empty(ctx context.Context, tx bun.Tx, tables ...string) error {
	if d.dialect == Postgres {
		_, err := tx.NewRaw("TRUNCATE TABLE ? RESTART IDENTITY CASCADE", names(tables)).Exec(ctx)
		return err
	}
	for _, table := range tables {
		if _, err := tx.NewRaw("DELETE FROM ?", bun.Ident(table)).Exec(ctx); err != nil {
			return err
		}
	}
	_, err := tx.NewRaw("DELETE FROM sqlite_sequence WHERE name IN (?)", bun.List(tables)).Exec(ctx)
	return err
}

// names are the names of tables in a statement, quoted.
func names(tables []string) schema.QueryAppender {
	quoted := make([]bun.Ident, len(tables))
	for i, table := range tables {
		quoted[i] = bun.Ident(table)
	}
	return bun.List(quoted)
}
