package models

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// Deleted is what others must forget of a user who is gone.
type Deleted struct {
	SIDs    []string // its device sessions, which have ended
	Running []int64  // its replies that were being written
}

// deletionTimeout bounds DeleteUser, which reads and deletes all that a user
// has.
const deletionTimeout = 5 * time.Minute

// DeleteUser deletes an account with all that belongs to it, and revokes its
// tokens. A passwordHash that is not "" must still be the user's: ErrNotFound if
// it is not, or the account is gone. With none it is somebody else who deletes
// the account: ErrLastAdmin if it is the last one that administers. A user who deletes itself leaves in the
// audit no address, only its id.
func (d *DB) DeleteUser(ctx context.Context, userID int64, passwordHash string, accessTTL time.Duration, by By) (Deleted, error) {
	ctx, cancel := context.WithTimeout(ctx, deletionTimeout)
	defer cancel()
	var deleted Deleted
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		deleted = Deleted{}
		u, err := d.holdAlone(ctx, tx, userID, passwordHash, &deleted)
		if err != nil {
			return err
		}
		if deleted.SIDs, err = d.deleteSessions(ctx, tx, userID, ""); err != nil {
			return err
		}
		if err := d.leaveAudit(ctx, tx, u, by); err != nil {
			return err
		}
		for _, statement := range []string{"DELETE FROM mails WHERE user_id = ?", "DELETE FROM users WHERE id = ?"} {
			if _, err := tx.NewRaw(statement, userID).Exec(ctx); err != nil {
				return err
			}
		}
		return d.revoke(ctx, tx, accessTTL, append(ofSessions(deleted.SIDs), Revocation{UserID: userID})...)
	})
	if err != nil {
		return Deleted{}, err
	}
	return deleted, nil
}

// holdAlone deletes the chats of a user, notes which replies were being written, and
// holds the user's row, when there are no chats left and so will be none.
//
// The chats go first, as all changes lock them before the user; those that begin
// meanwhile go when the row is held. Whoever changes one of these at that moment
// waits for the row in order to end, and must not be waited for: then the row is
// let go of, and all of it is done again.
func (d *DB) holdAlone(ctx context.Context, tx bun.Tx, userID int64, passwordHash string, deleted *Deleted) (u User, err error) {
	for {
		running, err := d.deleteChats(ctx, tx, userID, "UPDATE")
		if err != nil {
			return User{}, err
		}
		deleted.Running = append(deleted.Running, running...)
		var later []int64
		err = tx.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if u, err = d.holdDeletable(ctx, tx, userID, passwordHash); err != nil {
				return err
			}
			later, err = d.deleteChats(ctx, tx, userID, "UPDATE NOWAIT")
			return err
		})
		if state, _ := sqlState(err); state == lockNotAvailable {
			continue
		}
		deleted.Running = append(deleted.Running, later...)
		return u, err
	}
}

// holdDeletable is holdUser of who may be deleted, as DeleteUser says.
func (d *DB) holdDeletable(ctx context.Context, tx bun.Tx, userID int64, passwordHash string) (User, error) {
	if passwordHash == "" {
		last, err := d.holdAdmins(ctx, tx, userID)
		if err != nil {
			return User{}, err
		}
		if last {
			return User{}, ErrLastAdmin
		}
	}
	u, err := d.holdUser(ctx, tx, userID, "UPDATE")
	if err == nil && passwordHash != "" && u.PasswordHash != passwordHash {
		err = ErrNotFound
	}
	return u, err
}

// chatsAtOnce is how many chats one statement deletes.
const chatsAtOnce = 1000

// deleteChats deletes the chats that a user has at this moment and returns the
// ids of the replies that were being written. It takes locks in the order of
// DeleteChat, and goes by the ids of the chats that it holds: what begins
// between its statements is left whole. On PostgreSQL lock is how they are held.
func (d *DB) deleteChats(ctx context.Context, tx bun.Tx, userID int64, lock string) ([]int64, error) {
	var held []int64
	hold := tx.NewSelect().Model((*Chat)(nil)).Column("id").Where("user_id = ?", userID).Order("id")
	if d.dialect == Postgres {
		hold = hold.For(lock)
	}
	if err := hold.Scan(ctx, &held); err != nil {
		return nil, err
	}
	var running []int64
	for ids := range slices.Chunk(held, chatsAtOnce) {
		var some []int64
		err := tx.NewRaw("DELETE FROM replies WHERE chat_id IN (?) RETURNING message_id", bun.List(ids)).Scan(ctx, &some)
		if err != nil {
			return nil, err
		}
		running = append(running, some...)
		if _, err := tx.NewRaw("DELETE FROM chats WHERE id IN (?)", bun.List(ids)).Exec(ctx); err != nil {
			return nil, err
		}
	}
	return running, nil
}

// leaveAudit writes that a user is deleted. What the audit holds from before the
// user existed is about another one, who had the id before a wipe.
func (d *DB) leaveAudit(ctx context.Context, tx bun.Tx, u User, by By) error {
	if err := d.audit(ctx, tx, by, "account.deleted", u.ID, ""); err != nil {
		return err
	}
	if by.UserID != u.ID {
		return nil
	}
	for _, statement := range []string{
		"UPDATE audit_entries SET actor_email = NULL WHERE actor_id = ? AND at >= ?",
		"UPDATE audit_entries SET subject_email = NULL WHERE subject_id = ? AND at >= ?",
	} {
		if _, err := tx.NewRaw(statement, u.ID, u.CreatedAt).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
