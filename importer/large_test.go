package importer_test

import (
	"runtime/debug"
	"slices"
	"testing"

	"parley/importer"
	"parley/models"
	"parley/models/modelstest"
)

// TestALargeImport has 100,000 messages, or 5,000 where the race detector slows
// SQLite down by twenty times.
func TestALargeImport(t *testing.T) {
	t.Parallel()
	users := 1000
	info, ok := debug.ReadBuildInfo()
	if ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		users = 50
	}
	s := newSource(t, models.SQLite, amandaTables)
	total := int64(s.many(users, 5, 20))
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		report := run(t, db, options(s.url))
		wantEqual(t, "messages", report.Messages, importer.Tally{Total: total, Brought: total})
		var counted, stored int64
		err := db.Bun().NewRaw("SELECT (SELECT sum(message_count) FROM chats), (SELECT count(*) FROM messages)").Scan(t.Context(), &counted, &stored)
		if err != nil || counted != total || stored != total {
			t.Errorf("got %d counted, %d stored, %v; want %d", counted, stored, err, total)
		}
		again := run(t, db, options(s.url))
		wantEqual(t, "the second time", again.Messages, importer.Tally{Total: total, Known: total})
	})
}
