package models

import (
	"context"
	"slices"
	"time"
)

// Who a message is from.
const (
	RoleUser      = "user"
	RoleAssistant = "assistant"
)

// What state a message is in.
const (
	StatusComplete  = "complete"
	StatusStreaming = "streaming" // being written
	StatusStopped   = "stopped"   // cut short by the user
	StatusFailed    = "failed"    // cut short by a fault; ErrorCode says which
)

// A Message is what the user or the assistant said. Content of one that is being
// written is what has been saved of it.
type Message struct {
	ID           int64 `bun:",pk,autoincrement"`
	ChatID       int64
	Role         string
	Content      string
	Status       string
	FinishReason *string
	InputTokens  *int64
	OutputTokens *int64
	Estimated    bool // the tokens
	ErrorCode    *string
	Attempt      int   // which attempt's text it is, counted from 1
	SharedBytes  int64 // so far the texts of all attempts are the same
	CreatedAt    time.Time
}

// A Turn is a message as the AI service is told about it.
type Turn struct {
	Role    string
	Content string
}

// messageColumns reads a message m. The text of one that is being written comes
// from its chunks by the same statement, so that no end of the reply can come
// between the two.
const messageColumns = `m.id, m.chat_id, m.role, m.status, m.finish_reason, m.input_tokens, m.output_tokens,
	m.estimated, m.error_code, m.attempt, m.shared_bytes, m.created_at,
	CASE WHEN m.status = 'streaming'
		THEN COALESCE((SELECT string_agg(c.text, '' ORDER BY c.start) FROM reply_chunks c WHERE c.message_id = m.id), '')
		ELSE m.content END AS content`

// Messages returns a page of a chat's messages in chronological order. The first
// page holds the latest ones, and the cursor that comes with it leads back; it is
// empty at the beginning of the chat. Errors as of Chat; ErrInvalidCursor.
func (d *DB) Messages(ctx context.Context, userID, chatID int64, p Page) ([]Message, string, error) {
	limit, before := p.limit(), int64(1<<63-1)
	if p.Cursor != "" {
		key, err := messageList.key(p.Cursor, 1)
		if err != nil {
			return nil, "", err
		}
		before = key[0]
	}
	var ms []Message
	err := d.read.NewRaw(`SELECT `+messageColumns+` FROM messages m
		WHERE m.chat_id = ?0 AND m.id < ?1 AND EXISTS (SELECT 1 FROM chats WHERE id = ?0 AND user_id = ?2)
		ORDER BY m.id DESC LIMIT ?3`, chatID, before, userID, limit+1).Scan(ctx, &ms)
	if err != nil {
		return nil, "", classify(ctx, err)
	}
	if len(ms) == 0 {
		// An empty page, or no chat of this user.
		_, err := d.Chat(ctx, userID, chatID)
		return nil, "", err
	}
	ms, next := cut(ms, limit, func(m Message) string { return messageList.cursor(m.ID) })
	slices.Reverse(ms)
	return ms, next, nil
}

// Message returns a message of one of the user's chats; ErrNotFound, or
// ErrForbidden if it is somebody else's.
func (d *DB) Message(ctx context.Context, userID, messageID int64) (Message, error) {
	var row struct {
		Message
		UserID int64
	}
	err := d.read.NewRaw(`SELECT `+messageColumns+`, chats.user_id
		FROM messages m JOIN chats ON chats.id = m.chat_id WHERE m.id = ?`, messageID).Scan(ctx, &row)
	if err != nil {
		return Message{}, classify(ctx, err)
	}
	if row.UserID != userID {
		return Message{}, ErrForbidden
	}
	return row.Message, nil
}

// historyPage is how many messages History reads at a time.
const historyPage = 500

// History returns what was said in a chat before a message, oldest first,
// without empty messages. Of maxBytes of contents and maxMessages, 0 is no
// limit; limits keep the latest, and what they cut begins with the user.
func (d *DB) History(ctx context.Context, chatID, beforeMessageID, maxBytes, maxMessages int64) ([]Turn, error) {
	var (
		turns []Turn // latest first
		bytes int64
	)
	for {
		var page []struct {
			ID int64
			Turn
		}
		err := d.read.NewRaw(`SELECT id, role, content FROM messages
			WHERE chat_id = ? AND id < ? AND content <> '' AND status <> ?
			ORDER BY id DESC LIMIT ?`, chatID, beforeMessageID, StatusStreaming, historyPage).Scan(ctx, &page)
		if err != nil {
			return nil, classify(ctx, err)
		}
		for _, m := range page {
			bytes += int64(len(m.Content))
			if maxBytes > 0 && bytes > maxBytes || maxMessages > 0 && int64(len(turns)) == maxMessages {
				return wholeTurns(turns), nil
			}
			turns = append(turns, m.Turn)
		}
		if len(page) < historyPage {
			slices.Reverse(turns)
			return turns, nil
		}
		beforeMessageID = page[len(page)-1].ID
	}
}

// wholeTurns puts a history that was cut, latest first, in order, from the first
// message of the user on.
func wholeTurns(turns []Turn) []Turn {
	slices.Reverse(turns)
	for len(turns) > 0 && turns[0].Role == RoleAssistant {
		turns = turns[1:]
	}
	return turns
}
