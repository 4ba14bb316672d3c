package importer

import (
	"context"

	"github.com/uptrace/bun"

	"parley/models"
)

// statementBytes is how much text one statement carries, if it can: a message is
// never parted.
const statementBytes = 1 << 20

// store writes chats and messages, and what is to be known of them by the next
// run.
func (b *chatBatch) store(ctx context.Context, transfers []transfer) error {
	if err := b.storeChats(ctx, transfers); err != nil {
		return err
	}
	var (
		rows []models.Message
		size int
	)
	for _, t := range transfers {
		for _, m := range t.news {
			m.ChatID = t.ID
			rows = append(rows, m.Message)
			if size += len(m.Content); size >= statementBytes {
				if err := b.insert(ctx, &rows); err != nil {
					return err
				}
				rows, size = nil, 0
			}
		}
	}
	if len(rows) > 0 {
		if err := b.insert(ctx, &rows); err != nil {
			return err
		}
	}
	return b.queue(ctx, transfers)
}

// A searchable row has a message found, with what was said since the reply before
// it. Replies have one by themselves.
type searchable struct {
	bun.BaseModel `bun:"table:search_queue"`

	ChatID    int64
	MessageID int64
}

// queue has messages found that were never answered.
func (b *chatBatch) queue(ctx context.Context, transfers []transfer) error {
	var rows []searchable
	for _, t := range transfers {
		if n := len(t.news); n > 0 && t.news[n-1].Role == models.RoleUser {
			rows = append(rows, searchable{ChatID: t.ID, MessageID: t.news[n-1].ID})
		}
	}
	if len(rows) == 0 {
		return nil
	}
	return b.insert(ctx, &rows)
}

func (b *chatBatch) storeChats(ctx context.Context, transfers []transfer) error {
	var (
		begun []models.Chat
		notes []importedChat
	)
	for i := range transfers {
		t := &transfers[i]
		note := importedChat{ImportID: b.run.importID, OldID: t.old, NewID: &t.ID, OldMessageID: t.last}
		if !t.known {
			begun, notes = append(begun, t.Chat), append(notes, note)
			continue
		}
		_, err := b.tx.NewUpdate().Model(&t.Chat).
			Column("message_count", "last_message_at", "active_at", "title", "titled").WherePK().Exec(ctx)
		if err != nil {
			return err
		}
		_, err = b.tx.NewUpdate().Model(&note).Column("old_message_id").
			Where("import_id = ? AND old_id = ?", note.ImportID, note.OldID).Exec(ctx)
		if err != nil {
			return err
		}
	}
	if len(begun) == 0 {
		return nil
	}
	if err := b.insert(ctx, &begun); err != nil {
		return err
	}
	return b.insert(ctx, &notes)
}

func (b *chatBatch) insert(ctx context.Context, rows any) error {
	_, err := b.tx.NewInsert().Model(rows).Exec(ctx)
	return err
}
