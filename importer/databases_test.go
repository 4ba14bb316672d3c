package importer_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver pgx
	"github.com/uptrace/bun/driver/sqliteshim"

	"parley/auth"
	"parley/importer"
	"parley/models"
	"parley/models/modelstest"
)

// The tables of the two services as SQLAlchemy makes them. Amanda's are those
// that it documents; of Tena's, the names of the tables, the roles, is_admin and
// the reset tokens are known, and the rest is as usual.
const (
	amandaTables = `
		CREATE TABLE users (id {id}, email VARCHAR(255) NOT NULL, password_hash VARCHAR(255) NOT NULL, created_at {time} NOT NULL);
		CREATE UNIQUE INDEX ix_users_email ON users (email);
		CREATE TABLE chats (id {id}, user_id INTEGER NOT NULL REFERENCES users (id), title VARCHAR(100) NOT NULL, created_at {time} NOT NULL);
		CREATE INDEX ix_chats_user_id ON chats (user_id);
		CREATE TABLE messages (id {id}, chat_id INTEGER NOT NULL REFERENCES chats (id), role VARCHAR(20) NOT NULL, content TEXT NOT NULL, timestamp {time} NOT NULL);
		CREATE INDEX ix_messages_chat_id ON messages (chat_id);`
	tenaTables = `
		CREATE TABLE "user" (id {id}, username VARCHAR(80) UNIQUE, email VARCHAR(120) UNIQUE NOT NULL, password_hash VARCHAR(255) NOT NULL,
			is_admin BOOLEAN, reset_token VARCHAR(100) UNIQUE, reset_token_expiry {time}, created_at {time});
		CREATE TABLE chat_session (id {id}, user_id INTEGER NOT NULL REFERENCES "user" (id), title VARCHAR(200), created_at {time});
		CREATE TABLE message (id {id}, session_id INTEGER NOT NULL REFERENCES chat_session (id), role VARCHAR(10) NOT NULL, content TEXT NOT NULL, timestamp {time});`
)

// A source is a database of another service.
type source struct {
	t       testing.TB
	url     string
	dialect string
	db      *sql.DB
}

// newSource makes a database with these tables.
func newSource(t testing.TB, dialect, tables string) *source {
	t.Helper()
	s := &source{t: t, dialect: dialect}
	key, time := "INTEGER NOT NULL PRIMARY KEY", "DATETIME"
	var err error
	if dialect == models.Postgres {
		key, time = "SERIAL PRIMARY KEY", "TIMESTAMP WITHOUT TIME ZONE"
		s.url = modelstest.EmptyURL(t, dialect)
		s.db, err = sql.Open("pgx", s.url)
	} else {
		s.url = modelstest.EmptyURL(t, dialect)
		s.db, err = sql.Open(sqliteshim.ShimName, strings.TrimPrefix(s.url, "sqlite://"))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.db.SetMaxOpenConns(1)
	t.Cleanup(func() { s.db.Close() })
	s.exec(strings.NewReplacer("{id}", key, "{time}", time).Replace(tables))
	return s
}

// exec runs statements.
func (s *source) exec(statements string) {
	s.t.Helper()
	for statement := range strings.SplitSeq(statements, ";") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := s.db.Exec(statement); err != nil {
			s.t.Fatalf("%s: %v", statement, err)
		}
	}
}

// options are those of a run from a source.
func options(url string) importer.Options {
	return importer.Options{
		From: url, Batch: importer.DefaultBatch, NormalizeEmail: auth.NormalizeEmail,
		KnownHash: func(hash string) bool { return strings.HasPrefix(hash, "pbkdf2:sha256:") },
	}
}

// run brings a source over.
func run(t testing.TB, db *models.DB, o importer.Options) importer.Report {
	t.Helper()
	report, err := importer.Run(t.Context(), db, o)
	if err != nil {
		t.Fatal(err)
	}
	balanced(t, report)
	return report
}

// balanced fails the test if a report does not account for every row.
func balanced(t testing.TB, r importer.Report) {
	t.Helper()
	for table, tally := range map[string]importer.Tally{"users": r.Users, "chats": r.Chats, "messages": r.Messages} {
		if tally.Brought+tally.Known+tally.Behind != tally.Total {
			t.Errorf("%s are not accounted for: %+v", table, tally)
		}
	}
}

// content is what a database holds.
type content struct {
	Users    []models.User
	Chats    []models.Chat
	Messages []models.Message
}

func contentOf(t testing.TB, db *models.DB) content {
	t.Helper()
	var c content
	for _, rows := range []any{&c.Users, &c.Chats, &c.Messages} {
		if err := db.Bun().NewSelect().Model(rows).Order("id").Scan(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// exec runs a statement on a database of Parley.
func exec(t testing.TB, db *models.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.Bun().NewRaw(statement, args...).Exec(t.Context()); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func wantEqual(t testing.TB, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// at is a time of one day.
func at(clock string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05.999999", "2024-03-01 "+clock)
	if err != nil {
		panic(err)
	}
	return t
}

func ptr[T any](v T) *T { return &v }

// eachPair runs test for a source and a database of every dialect.
func eachPair(t *testing.T, test func(t *testing.T, from string, db *models.DB)) {
	t.Helper()
	for _, from := range modelstest.Dialects {
		for _, to := range modelstest.Dialects {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				test(t, from, modelstest.New(t, to))
			})
		}
	}
}

// many fills a source in Amanda's tables with users, each with chats of so many
// messages, and returns how many messages that makes.
func (s *source) many(users, chats, messages int) int {
	s.t.Helper()
	const hash = "pbkdf2:sha256:1000$kq9Zt3vBnM1xRw7L$72ec27dd225bb3778fa09696663023b2f2c10bf95b7ea96b3dcaf04c61b97427"
	var accounts, talks, texts []string
	flush := func(table string, rows *[]string, least int) {
		if len(*rows) > least {
			s.exec("INSERT INTO " + table + " VALUES " + strings.Join(*rows, ", "))
			*rows = nil
		}
	}
	talk, text := 0, 0
	for u := 1; u <= users; u++ {
		accounts = append(accounts, fmt.Sprintf("(%d, 'person%d@example.org', '%s', '2024-03-01 08:00:00.%06d')", u, u, hash, u))
		for range chats {
			talk++
			talks = append(talks, fmt.Sprintf("(%d, %d, 'New Chat', '2024-03-01 09:00:00.%06d')", talk, u, talk))
			for m := range messages {
				text++
				role := []string{"user", "assistant"}[m%2]
				texts = append(texts, fmt.Sprintf("(%d, %d, '%s', 'Text %d, with some words in it', '2024-03-01 %02d:%02d:%02d.%06d')",
					text, talk, role, text, 10+m/3600, m/60%60, m%60, text%1_000_000))
			}
		}
		flush("users", &accounts, 2000)
		flush("chats", &talks, 2000)
		flush("messages", &texts, 2000)
	}
	flush("users", &accounts, 0)
	flush("chats", &talks, 0)
	flush("messages", &texts, 0)
	return text
}
