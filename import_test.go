package main_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/uptrace/bun/driver/sqliteshim"

	"parley/models"
	"parley/models/modelstest"
)

// amandaFile makes a database as Amanda has one, with one account, whose password
// is "Grüße aus Köln" by Werkzeug 3.1.8, and returns its URL.
func amandaFile(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "amanda.db")
	db, err := sql.Open(sqliteshim.ShimName, path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Exec(`
		CREATE TABLE users (id INTEGER PRIMARY KEY, email VARCHAR(255), password_hash VARCHAR(255), created_at DATETIME);
		CREATE TABLE chats (id INTEGER PRIMARY KEY, user_id INTEGER, title VARCHAR(100), created_at DATETIME);
		CREATE TABLE messages (id INTEGER PRIMARY KEY, chat_id INTEGER, role VARCHAR(20), content TEXT, timestamp DATETIME);
		INSERT INTO users VALUES (5, 'ann@example.org', 'pbkdf2:sha256:260000$kq9Zt3vB$ab26e04c30a5a0c64e9897e3462db634143189fbdbaa2daff8a296e67e4b8fc2', '2024-03-01 08:00:00');
		INSERT INTO chats VALUES (3, 5, 'Growing apart', '2024-03-01 09:00:00');
		INSERT INTO messages VALUES (8, 3, 'user', 'Hello', '2024-03-01 09:00:01'), (9, 3, 'assistant', 'Hi', '2024-03-01 09:00:02')`)
	if err != nil {
		t.Fatal(err)
	}
	return "sqlite://" + path
}

const importReport = `From Amanda's database, in SQLite:
  users: id, email, password_hash, created_at
  chats: id, user_id, title, created_at
  messages: id, chat_id, role, content, timestamp

              IN ALL   BROUGHT OVER   WITH ANOTHER ID   BEFORE   LEFT BEHIND
      users        1              1                 0        0             0
      chats        1              1                 0        0             0
   messages        2              2                 0        0             0
`

func TestAnImportedUserSignsInAndFindsTheChats(t *testing.T) {
	t.Parallel()
	from := amandaFile(t)
	onBoth(t, func(t *testing.T, settings []string) {
		s := start(t, settings...) // which may run meanwhile
		dry := run(t, settings, "import", "--dry-run", "--from", from)
		want := strings.Replace(importReport, "BROUGHT OVER", "WOULD COME OVER", 1)
		if diff := cmp.Diff(strings.Fields(dry.Stdout), strings.Fields(want)); diff != "" || dry.Code != 0 || dry.Stderr != "" {
			t.Errorf("dry run: got %+v; but for white space (-got +want):\n%s", dry, diff)
		}
		if diff := cmp.Diff(run(t, settings, "import", "--from", from, "--batch", "1"), ended{0, importReport, ""}); diff != "" {
			t.Errorf("(-got +want):\n%s", diff)
		}

		var session struct {
			user
			User struct{ ID int64 }
		}
		nobody.ask(t, s, "POST", "/api/v1/auth/login", `{"email":"Ann@example.org","password":"Grüße aus Köln"}`).want(t, 200).decode(t, &session)
		var chat struct {
			Title    string
			Messages []struct {
				ID      int64
				Content string
			}
		}
		session.ask(t, s, "GET", "/api/v1/chats/3", "").want(t, 200).decode(t, &chat)
		if got := chat.Messages; session.User.ID != 5 || chat.Title != "Growing apart" || len(got) != 2 || got[0].ID != 8 || got[1].Content != "Hi" {
			t.Errorf("got %+v and %+v", session.User, chat)
		}
	})
}

// Whoever moves in tries that before anything else has run here.
func TestADryRunBeforeTheFirstStartMakesNoFile(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	dry := run(t, []string{"DATABASE_URL=sqlite://" + folder + "/parley.db"}, "import", "--dry-run", "--from", amandaFile(t))
	want := strings.Replace(importReport, "BROUGHT OVER", "WOULD COME OVER", 1)
	if diff := cmp.Diff(strings.Fields(dry.Stdout), strings.Fields(want)); diff != "" || dry.Code != 0 || dry.Stderr != "" {
		t.Errorf("got %+v; but for white space (-got +want):\n%s", dry, diff)
	}
	if left, err := os.ReadDir(folder); len(left) > 0 || err != nil {
		t.Errorf("it leaves %v (%v)", left, err)
	}
}

func TestImportsThatCannotBe(t *testing.T) {
	t.Parallel()
	settings := []string{"DATABASE_URL=" + modelstest.URL(t, models.SQLite)}
	from := amandaFile(t)
	for name, test := range map[string]struct {
		settings, args []string
		want           ended
	}{
		"of nothing": {
			settings, nil,
			ended{2, "", "parley import: --from is missing; see parley import --help\n"},
		},
		"in batches of nothing": {
			settings,
			[]string{"--from", from, "--batch", "0"},
			ended{2, "", "parley import: --batch is 1 to 100000; see parley import --help\n"},
		},
		"of a file that is not there": {
			settings,
			[]string{"--from", "sqlite://absent.db"},
			ended{1, "", "parley: the source: stat absent.db: no such file or directory\n"},
		},
		"into a database without tables": {
			[]string{"DATABASE_URL=" + modelstest.EmptyURL(t, models.SQLite), "MIGRATE_ON_START=false"},
			[]string{"--from", from},
			ended{1, "", "parley: DATABASE_URL: N migrations are pending; parley migrate up applies them\n"},
		},
		"tried on a database without tables": {
			[]string{"DATABASE_URL=" + modelstest.EmptyURL(t, models.Postgres)},
			[]string{"--from", from, "--dry-run"},
			ended{1, "", "parley: DATABASE_URL: N migrations are pending; parley migrate up applies them\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := run(t, test.settings, append([]string{"import"}, test.args...)...)
			got.Stderr = regexp.MustCompile(`\d+ migrations`).ReplaceAllString(got.Stderr, "N migrations")
			if diff := cmp.Diff(got, test.want); diff != "" {
				t.Errorf("(-got +want):\n%s", diff)
			}
		})
	}
}
