package models

import (
	"context"
	"time"
)

// What a user is given of what is stored about it. Each reads a part, in the
// order of the ids, limit rows at the most, from the one after afterID on. None
// asks who wants to know.

// ExportChats returns chats of a user.
func (d *DB) ExportChats(ctx context.Context, userID, afterID int64, limit int) ([]Chat, error) {
	var chats []Chat
	err := d.read.NewSelect().Model(&chats).Where("user_id = ? AND id > ?", userID, afterID).
		Order("id").Limit(int64(limit)).Scan(ctx)
	return chats, classify(ctx, err)
}

// ExportMessages returns messages of a chat.
func (d *DB) ExportMessages(ctx context.Context, chatID, afterID int64, limit int) ([]Message, error) {
	var ms []Message
	err := d.read.NewRaw(`SELECT `+messageColumns+` FROM messages m WHERE m.chat_id = ? AND m.id > ?
		ORDER BY m.id LIMIT ?`, chatID, afterID, limit).Scan(ctx, &ms)
	return ms, classify(ctx, err)
}

// A CountedUsage is a Usage, and for what: an attempt at a reply, or, with Fence
// 0, the title of its chat.
type CountedUsage struct {
	MessageID int64
	Fence     int
	ChatID    int64
	Day       string
	Usage
	CreatedAt time.Time
}

// ExportUsage returns what was counted for a user, in the order of the messages.
// Of a message it returns all, so they may be more than limit.
func (d *DB) ExportUsage(ctx context.Context, userID, afterMessageID int64, limit int) ([]CountedUsage, error) {
	var rows []CountedUsage
	err := d.read.NewRaw(`SELECT message_id, fence, chat_id, day, model, input_tokens, output_tokens, estimated, created_at
		FROM usage WHERE user_id = ?0 AND message_id IN (
			SELECT DISTINCT message_id FROM usage WHERE user_id = ?0 AND message_id > ?1 ORDER BY message_id LIMIT ?2)
		ORDER BY message_id, fence`, userID, afterMessageID, limit).Scan(ctx, &rows)
	return rows, classify(ctx, err)
}

// ExportAudit returns what was done to a user. What the audit holds from before
// the user existed is about another one, who had the id before a wipe.
func (d *DB) ExportAudit(ctx context.Context, userID, afterID int64, limit int) ([]AuditEntry, error) {
	var entries []AuditEntry
	err := d.read.NewSelect().Model(&entries).
		Where("subject_id = ?0 AND id > ?1 AND at >= (SELECT created_at FROM users WHERE id = ?0)", userID, afterID).
		Order("id").Limit(int64(limit)).Scan(ctx)
	return entries, classify(ctx, err)
}

// ExportUploads returns the recordings of a user that are stored for a while,
// without their bytes.
func (d *DB) ExportUploads(ctx context.Context, userID, afterID int64, limit int) ([]Upload, error) {
	var us []Upload
	err := d.read.NewRaw("SELECT * FROM uploads WHERE user_id = ? AND id > ? ORDER BY id LIMIT ?", userID, afterID, limit).
		Scan(ctx, &us)
	return us, classify(ctx, err)
}
