package models_test

import (
	"testing"

	"parley/models"
	"parley/models/modelstest"
)

// While a newer version is rolled out, this one meets columns that it does not
// know.
func TestColumnsOfANewerVersionAreIgnored(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		for _, table := range []string{"users", "device_sessions", "chats", "messages", "replies", "user_events"} {
			_, err := db.Bun().NewRaw("ALTER TABLE " + table + " ADD COLUMN of_tomorrow text DEFAULT 'x'").Exec(t.Context())
			must(t, err)
		}
		chat := newChat(t, db)
		say(t, db, chat, "question", "answer")
		_, err := db.User(t.Context(), chat.UserID)
		must(t, err)
		_, _, err = db.Messages(t.Context(), chat.UserID, chat.ID, models.Page{Limit: 10})
		must(t, err)
		_, err = db.UserEvents(t.Context(), chat.UserID, 0, 10)
		must(t, err)
	})
}
