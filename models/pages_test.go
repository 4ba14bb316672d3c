package models_test

import (
	"encoding/base64"
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

func TestACursorOfAnotherListIsInvalid(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		chat := newChat(t, db)
		say(t, db, chat, "question", "answer")
		for range 2 {
			_, err := createChat(t, db, chat.UserID)
			must(t, err)
		}
		_, chats, err := db.Chats(t.Context(), chat.UserID, models.Page{Limit: 1})
		must(t, err)
		_, messages, err := db.Messages(t.Context(), chat.UserID, chat.ID, models.Page{Limit: 1})
		must(t, err)
		if chats == "" || messages == "" {
			t.Fatalf("got cursors %q and %q, want two", chats, messages)
		}
		raw := func(b ...byte) string { return base64.RawURLEncoding.EncodeToString(b) }
		for name, cursor := range map[string]string{
			"of the other list, messages": messages,
			"of the other list, chats":    chats,
			"not base64":                  "!!",
			"a number":                    "12",
			"a line break inside":         "\n",
			"id 0":                        raw('m', 0, 0, 0, 0, 0, 0, 0, 0),
			"a negative id":               raw('m', 255, 0, 0, 0, 0, 0, 0, 1),
			"a longer one of messages":    raw('m', 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1),
			"too short":                   raw('m', 0, 0, 0, 0, 0, 0, 1),
			"too long":                    raw('m', 0, 0, 0, 0, 0, 0, 0, 1, 0),
		} {
			switch name {
			case "of the other list, messages":
			case "a line break inside":
				_, _, err := db.Chats(t.Context(), chat.UserID, models.Page{Cursor: chats[:4] + cursor + chats[4:]})
				wantError(t, err, models.ErrInvalidCursor)
				cursor = messages[:4] + cursor + messages[4:]
				fallthrough
			default:
				_, _, err := db.Messages(t.Context(), chat.UserID, chat.ID, models.Page{Cursor: cursor})
				wantError(t, err, models.ErrInvalidCursor)
			}
			if cursor != chats {
				_, _, err := db.Chats(t.Context(), chat.UserID, models.Page{Cursor: cursor})
				wantError(t, err, models.ErrInvalidCursor)
			}
		}
	})
}

// A cursor has one form: what is accepted is what would be written.
func FuzzChatCursor(f *testing.F) {
	for _, seed := range []string{"", "YwAGTgAAAAAAAAAAAAAAAAA", "YwAAAAAAAAAAAAAAAAAAAAE", "YwAAAAAAAAAAAAAAAAAAAAF", "Yw\nAAAAAAAAAAAAAAAAAAAAE"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		if again, err := models.ChatCursor(cursor); err == nil && again != cursor {
			t.Errorf("got %q accepted, want only %q", cursor, again)
		}
	})
}
