package models

import (
	"context"
	"time"

	"github.com/uptrace/bun"
)

// By is who does something and from where, for the audit.
type By struct {
	UserID    int64 // 0: nobody who is signed in
	IP        string
	RequestID string
}

// An AuditEntry says who did what to whom, when, from where. It is written in
// the same transaction as what it tells of, and outlives the users that it
// names: after a wipe another user may have the id.
type AuditEntry struct {
	ID           int64 `bun:",pk,autoincrement"`
	At           time.Time
	Action       string // such as "session.ended"
	ActorID      int64  `bun:",nullzero"` // 0: nobody who was signed in
	ActorEmail   string `bun:",nullzero"` // at that time; "" once the user has deleted itself
	SubjectID    int64  `bun:",nullzero"` // whom it was done to; 0: no user
	SubjectEmail string `bun:",nullzero"` // as ActorEmail
	IP           string
	RequestID    string
	Detail       string
}

// AuditEntries returns a page of the audit, latest first, and the cursor of the
// next page, empty at the end. ErrInvalidCursor.
func (d *DB) AuditEntries(ctx context.Context, p Page) ([]AuditEntry, string, error) {
	limit := p.limit()
	var entries []AuditEntry
	q := d.read.NewSelect().Model(&entries).Order("id DESC").Limit(int64(limit) + 1)
	if p.Cursor != "" {
		key, err := auditList.key(p.Cursor, 1)
		if err != nil {
			return nil, "", err
		}
		q = q.Where("id < ?", key[0])
	}
	if err := q.Scan(ctx); err != nil {
		return nil, "", classify(ctx, err)
	}
	entries, next := cut(entries, limit, func(e AuditEntry) string { return auditList.cursor(e.ID) })
	return entries, next, nil
}

// audit writes what by does to a user, 0 for none. The addresses are those of
// this moment.
func (d *DB) audit(ctx context.Context, tx bun.Tx, by By, action string, subjectID int64, detail string) error {
	_, err := d.exec(ctx, tx, `
		INSERT INTO audit_entries (at, action, actor_id, actor_email, subject_id, subject_email, ip, request_id, detail)
		VALUES (?, ?, NULLIF(?, 0), (SELECT email FROM users WHERE id = ?),
			NULLIF(?, 0), (SELECT email FROM users WHERE id = ?), ?, ?, ?)`,
		d.now(), action, by.UserID, by.UserID, subjectID, subjectID, by.IP, by.RequestID, detail)
	return err
}
