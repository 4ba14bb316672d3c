package migrations_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/migrations"
	"parley/models"
	"parley/models/modelstest"
)

// The texts that may be long are compressed by lz4, where PostgreSQL has it. Where
// somebody reads one of them for long, a run does not wait for that: whoever came
// after it would wait as well.
func TestTextsAreCompressedByLZ4(t *testing.T) {
	t.Parallel()
	db := open(t, modelstest.EmptyURL(t, models.Postgres))
	up := func() {
		t.Helper()
		if err := migrations.Up(t.Context(), db.Bun(), silent); err != nil {
			t.Fatal(err)
		}
	}
	// "l" is lz4 (pg_attribute, attcompression); without it the server's preset holds.
	columns := func() (by []string) {
		t.Helper()
		err := db.Bun().NewRaw(`SELECT relname || '.' || attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
			WHERE attcompression = 'l' AND relkind = 'r' ORDER BY 1`).Scan(t.Context(), &by)
		if err != nil {
			t.Fatal(err)
		}
		return by
	}
	want := []string{"message_words.words", "messages.content", "reply_chunks.text"}
	up()
	if diff := cmp.Diff(want, columns()); diff != "" {
		t.Errorf("compressed by lz4 (-want +got):\n%s", diff)
	}
	for len(columns()) > 0 {
		if err := migrations.Down(t.Context(), db.Bun(), silent); err != nil {
			t.Fatal(err)
		}
	}
	reader, err := db.Bun().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Rollback() //nolint:errcheck // it has changed nothing
	if _, err := reader.ExecContext(t.Context(), "SELECT count(*) FROM reply_chunks"); err != nil {
		t.Fatal(err)
	}
	up()
	if got := columns(); len(got) > 0 {
		t.Errorf("compressed by lz4 under a reader: %q", got)
	}
}
