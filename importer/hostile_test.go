package importer_test

import (
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun/driver/sqliteshim"

	"parley/importer"
	"parley/models"
	"parley/models/modelstest"
)

// SQLite takes anything in any column, so what is hostile comes from there.
func TestHostileRowsAreData(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		mine := models.User{Email: "mine@example.org", UserName: "mine"}
		if err := db.CreateUser(t.Context(), &mine, &models.DeviceSession{SID: "s"}, models.By{}); err != nil {
			t.Fatal(err)
		}
		exec(t, db, "DELETE FROM audit_entries")
		s := newSource(t, models.SQLite, `
			CREATE TABLE users (id, username, email, password, created_at);
			CREATE TABLE chats (id, user_id, title, created_at);
			CREATE TABLE messages (id, chat_id, role, content, timestamp)`)
		s.exec(`
			INSERT INTO users VALUES
				(-5, 'negative', 'negative@example.org', 'pbkdf2:sha256:1$s$a', '2024-03-01 08:00:00'),
				(2, 'a' || char(0) || 'b', ' Ann@Example.org ', 'pbkdf2:sha256:1$s$a', '2024-03-01T08:00:00Z'),
				(3, 'younger', 'ANN@example.org', 'x', '2024-03-01 08:00:00'),
				(4, 'here', 'Mine@example.org', 'x', '2024-03-01 08:00:00'),
				(5, 'bad', 'no address', 'x', '2024-03-01 08:00:00'),
				(6, 'none', NULL, 'x', '2024-03-01 08:00:00'),
				(7, CAST(x'ff41' AS TEXT), 'bytes@example.org', NULL, 'a long time ago'),
				(8, NULL, 'quote'' OR 1=1--@example.org', 'x', '2024-03-01 08:00:00'),
				(8, NULL, 'twice@example.org', 'x', '2024-03-01 08:00:00'),
				(9, 'line' || char(10) || 'two', 'ones@example.org', '?0', 1709280000),
				(9223372036854775807, 'last', 'last@example.org', 'x', '99999-01-01 00:00:00'),
				('eleven', 'eleven', 'eleven@example.org', 'x', '2024-03-01 08:00:00');
			INSERT INTO chats VALUES
				(1, 2, 'it''s?0 ?', '2024-03-01 09:00:00'),
				(2, 3, 'of the younger', '2024-03-01 09:00:00'),
				(3, 77, 'of nobody', '2024-03-01 09:00:00'),
				(4, 'two', 'of a word', '2024-03-01 09:00:00'),
				(5, 2, printf('%.300c', 'x'), NULL),
				('six', 2, 'six', '2024-03-01 09:00:00'),
				(9223372036854775807, 2, NULL, '1969-01-01 00:00:00');
			INSERT INTO messages VALUES
				(1, 1, 'user', 'a' || char(0) || 'b', '2024-03-01 09:30:00.000002'),
				(2, 1, 'assistant', CAST(x'61ff62' AS TEXT), 'soon'),
				(3, 1, 'system', 'You are a companion', '2024-03-01 09:00:01'),
				(4, 1, 'tool', 'x', '2024-03-01 09:00:02'),
				(5, 1, NULL, 'x', '2024-03-01 09:00:03'),
				(6, 1, ' User ', ''') OR 1=1 -- ', '2024-03-01 09:30:00.000001'),
				(7, 1, 'assistant', NULL, '2035-01-01 00:00:00'),
				(8, 2, 'user', 'x', '2024-03-01 09:00:00'),
				(9, 3, 'user', 'x', '2024-03-01 09:00:00'),
				(9, 99, 'user', 'x', '2024-03-01 09:00:00'),
				('ten', 1, 'user', 'x', '2024-03-01 09:00:00'),
				(11, 5, 'assistant', x'c3a9', 1709283600.5),
				(11, 5, 'assistant', x'c3a9', 1709283600.5),
				(12, 'six', 'user', 'x', '2024-03-01 09:00:00'),
				(1, 9223372036854775807, 'user', '   ', '2024-03-01T10:00:00+01:00')`)
		o := options(s.url)
		o.Batch = 2
		report := run(t, db, o)

		got := contentOf(t, db)
		for i := range got.Users {
			u := &got.Users[i]
			if time.Since(u.CreatedAt) < time.Hour { // where nothing is known it is the present
				u.CreatedAt = time.Time{}
			}
		}
		said := func(id, chat int64, role, text, clock string) models.Message {
			return models.Message{ID: id, ChatID: chat, Role: role, Content: text, Status: "complete", Attempt: 1, CreatedAt: at(clock)}
		}
		wantEqual(t, "content", got, content{
			Users: []models.User{
				{ID: 1, Email: "mine@example.org", UserName: "mine"},
				{ID: 2, Email: "ann@example.org", UserName: "a\ufffdb", PasswordHash: "pbkdf2:sha256:1$s$a", CreatedAt: at("08:00:00")},
				{ID: 7, Email: "bytes@example.org", UserName: "\ufffdA"},
				{ID: 9, Email: "ones@example.org", UserName: "line two", PasswordHash: "?0", CreatedAt: at("08:00:00")},
				{ID: 10, Email: "negative@example.org", UserName: "negative", PasswordHash: "pbkdf2:sha256:1$s$a", CreatedAt: at("08:00:00")},
				{ID: 11, Email: "last@example.org", UserName: "last", PasswordHash: "x"},
			},
			Chats: []models.Chat{
				{
					ID: 1, UserID: 2, Title: "it's?0 ?", Titled: true, CreatedAt: at("09:00:00"),
					MessageCount: 4, LastMessageAt: ptr(at("09:30:00.000002")), ActiveAt: at("09:30:00.000002"),
				},
				{
					ID: 5, UserID: 2, Title: strings.Repeat("x", 199) + "…", Titled: true, CreatedAt: at("09:00:00.5"),
					MessageCount: 1, LastMessageAt: ptr(at("09:00:00.5")), ActiveAt: at("09:00:00.5"),
				},
				{
					ID: 6, UserID: 2, Title: "New Chat", CreatedAt: at("09:00:00"),
					MessageCount: 1, LastMessageAt: ptr(at("09:00:00")), ActiveAt: at("09:00:00"),
				},
			},
			Messages: []models.Message{
				// The first chat's are in the order of their times, which is not that
				// of their ids; so the id 1 was free for the last chat.
				said(1, 6, "user", "   ", "09:00:00"),
				said(6, 1, "user", "') OR 1=1 -- ", "09:30:00.000001"),
				said(7, 1, "assistant", "", "09:30:00.000001"),
				said(11, 5, "assistant", "é", "09:00:00.5"),
				said(13, 1, "user", "a\ufffdb", "09:30:00.000002"),
				said(14, 1, "assistant", "a\ufffdb", "09:30:00.000002"),
			},
		})
		_, remarks, _ := strings.Cut(report.String(), "\n\n")
		_, remarks, _ = strings.Cut(remarks, "\n\n")
		wantEqual(t, "remarks", remarks, `6 texts were mended: what cannot be stored is marked by U+FFFD, names and titles are one line.

6 times are not said or make no sense; those of what stands before are taken.

Left behind:
  1 users: an older account of the source has the same address (3)
  1 users: the address has an account here (4)
  3 users: the address is none that can be written to (5 6 8)
  1 users: the id is there twice (8)
  1 users: the id is no whole number
  1 messages: the role is system, and those are not kept here (3)
  2 messages: the role is neither the user nor the assistant (4 5)
  1 messages: the id is no whole number
  1 chats: their account stays behind (2)
  3 messages: their chat stays behind
  2 chats: there is no account that they belong to (3 4)
  1 messages: the id is there twice (11)
  1 chats: the id is no whole number
  1 messages: there is no chat that they belong to

To be told:
  3 users: the password hash is of no known kind, so it has to be reset (7 9 9223372036854775807)
`)
		again := run(t, db, o)
		wantEqual(t, "the second time", []int64{again.Users.Brought, again.Chats.Brought, again.Messages.Brought}, []int64{0, 0, 0})
		wantEqual(t, "known", []int64{again.Users.Known, again.Chats.Known, again.Messages.Known}, []int64{5, 3, 6})
	})
}

func TestAnotherAccountUnderTheSameIDGetsNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.exec("INSERT INTO users VALUES (1, 'ann@example.org', '', '2024-03-01 08:00:00')")
		run(t, db, options(s.url))
		// The file is another one by now: a copy of a database that went its own way.
		s.exec(`
			DELETE FROM users; INSERT INTO users VALUES (1, 'eve@example.org', '', '2024-03-01 08:00:01');
			INSERT INTO chats VALUES (1, 1, 'Of Eve', '2024-03-01 09:00:00')`)
		report := run(t, db, options(s.url))
		wantEqual(t, "users", report.Users, importer.Tally{Total: 1, Behind: 1})
		wantEqual(t, "chats", report.Chats, importer.Tally{Total: 1, Behind: 1})
	})
}

func TestAChatThatChangedHandsStaysWhereItIs(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.many(2, 1, 2)
		run(t, db, options(s.url))
		s.exec(`UPDATE chats SET user_id = 2 WHERE id = 1; INSERT INTO messages VALUES (5, 1, 'user', 'Private', '2024-03-02 09:00:00')`)
		before := contentOf(t, db)
		report := run(t, db, options(s.url))
		wantEqual(t, "content", contentOf(t, db), before)
		wantEqual(t, "chats", report.Chats, importer.Tally{Total: 2, Known: 1, Behind: 1})
	})
}

func TestAnAccountThatIsDeletedMeanwhileGetsNoChats(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.many(2, 2, 2)
		o := options(s.url)
		var deleted sync.Once
		o.Progress = func(*importer.Report) {
			deleted.Do(func() {
				if _, err := db.DeleteUser(t.Context(), 1, "", 0, models.By{}); err != nil {
					t.Error(err)
				}
			})
		}
		report := run(t, db, o)
		wantEqual(t, "users", report.Users, importer.Tally{Total: 2, Brought: 2})
		wantEqual(t, "chats", report.Chats, importer.Tally{Total: 4, Brought: 2, Behind: 2})
		wantEqual(t, "messages", report.Messages, importer.Tally{Total: 8, Brought: 4, Behind: 4})
	})
}

// After a wipe ids begin anew, so an id that is noted may be a stranger's.
func TestAfterAWipeNobodyGetsTheChatsOfOthers(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.many(2, 2, 2)
		run(t, db, options(s.url))
		if db.Dialect() == models.Postgres {
			exec(t, db, `TRUNCATE "users", "chats", "messages" RESTART IDENTITY CASCADE`)
		} else {
			exec(t, db, "DELETE FROM users")
			exec(t, db, "DELETE FROM sqlite_sequence WHERE name IN ('users', 'chats', 'messages')")
		}
		stranger := models.User{Email: "stranger@example.org"}
		if err := db.CreateUser(t.Context(), &stranger, &models.DeviceSession{SID: "s"}, models.By{}); err != nil || stranger.ID != 1 {
			t.Fatalf("got %d, %v", stranger.ID, err)
		}
		run(t, db, options(s.url))
		for _, chat := range contentOf(t, db).Chats {
			if chat.UserID == stranger.ID {
				t.Errorf("the stranger has got %+v", chat)
			}
		}
		exec(t, db, "DELETE FROM imports")
		run(t, db, options(s.url))
		got := contentOf(t, db)
		wantEqual(t, "accounts and chats", []int{len(got.Users), len(got.Chats)}, []int{3, 4})
	})
}

// What the audit holds about an id since the account was created is shown to its
// user, and those that come over were created long ago.
func TestNobodyGetsTheAuditOfAnother(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		stranger := models.User{Email: "stranger@example.org"}
		if err := db.CreateUser(t.Context(), &stranger, &models.DeviceSession{SID: "s"}, models.By{}); err != nil {
			t.Fatal(err)
		}
		s := newSource(t, models.SQLite, amandaTables)
		s.exec("INSERT INTO users VALUES (1, 'ann@example.org', '', '2024-03-01 08:00:00'), (3, 'bob@example.org', '', '2024-03-01 08:00:00')")
		for range 2 {
			if _, err := db.DeleteAllUsers(t.Context(), 0, models.By{}); err != nil {
				t.Fatal(err)
			}
			run(t, db, options(s.url))
			var ids []string
			for _, u := range contentOf(t, db).Users {
				ids = append(ids, fmt.Sprint(u.ID, " ", u.Email))
			}
			// The second time bob has been there before, and is himself.
			wantEqual(t, "ids", ids, []string{"3 bob@example.org", "4 ann@example.org"})
		}
	})
}

func TestWhatIsNoSourceIsRefused(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return "sqlite://" + path
	}
	tables := func(dialect, tables string) string { return newSource(t, dialect, tables).url }
	lacking := strings.NewReplacer("email", "phone", "role", "kind").Replace(amandaTables)
	for name, test := range map[string]struct{ from, want string }{
		"nothing":                {"", "want sqlite://path or postgres://…"},
		"a path":                 {"amanda.db", "want sqlite://path or postgres://…"},
		"another database":       {"mysql://user:open-sesame@host/amanda", "want sqlite://path or postgres://…"},
		"a file that is not":     {"sqlite://absent.db", "stat absent.db: no such file or directory"},
		"an absolute one":        {"sqlite:///absent.db", "stat /absent.db: no such file or directory; a path behind sqlite:/// is absolute"},
		"a folder":               {"sqlite://" + folder, folder + " is no file"},
		"a bad escape":           {"sqlite://%zz", `invalid URL escape "%zz"`},
		"an empty file":          {file("empty.db", ""), `it holds neither Amanda's tables (users, chats, messages) nor Tena's ("user", chat_session, message)`},
		"a file of other things": {file("notes.db", strings.Repeat("no database ", 100)), "file is not a database (26)"},
		"other tables":           {tables(models.SQLite, "CREATE TABLE users (id INTEGER)"), `it holds neither Amanda's tables (users, chats, messages) nor Tena's ("user", chat_session, message)`},
		"views":                  {tables(models.SQLite, "CREATE VIEW users AS SELECT 1; CREATE VIEW chats AS SELECT 1; CREATE VIEW messages AS SELECT 1"), `it holds neither Amanda's tables (users, chats, messages) nor Tena's ("user", chat_session, message)`},
		"both services":          {tables(models.SQLite, amandaTables+";"+tenaTables), "it holds the tables of both Amanda and Tena; bring them over from two databases"},
		"columns that lack": {
			tables(models.SQLite, lacking),
			"it looks like Amanda's, but table users has no column for the email (email, email_address); table messages has no column for the role (role, sender)",
		},
		"ids that are none": {
			tables(models.Postgres, strings.NewReplacer("{id}", "uuid PRIMARY KEY", "INTEGER NOT NULL REFERENCES", "uuid NOT NULL REFERENCES").Replace(amandaTables)),
			"it looks like Amanda's, but column id of table users is of type uuid, and ids are whole numbers; " +
				"column id of table chats is of type uuid, and ids are whole numbers; column id of table messages is of type uuid, and ids are whole numbers",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := importer.Run(t.Context(), modelstest.New(t, models.SQLite), options(test.from))
			if !errors.Is(err, importer.ErrSource) || err.Error() != "the source: "+test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

func TestADatabaseIsNotBroughtOverToItself(t *testing.T) {
	t.Parallel()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			url := modelstest.URL(t, dialect)
			db, err := models.Open(t.Context(), url)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			_, err = importer.Run(t.Context(), db, options(url))
			if !errors.Is(err, importer.ErrSource) || err.Error() != "the source: it is the database to bring over to" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAServerThatDoesNotAnswerIsToldWithoutItsPassword(t *testing.T) {
	t.Parallel()
	from := "postgresql+psycopg2://u:open-sesame@127.0.0.1:1/x?connect_timeout=1"
	_, err := importer.Run(t.Context(), modelstest.New(t, models.SQLite), options(from))
	if !errors.Is(err, importer.ErrSource) || strings.Contains(err.Error(), "open-sesame") {
		t.Errorf("got %v", err)
	}
}

func TestTheSourceIsLeftAsItIs(t *testing.T) {
	t.Parallel()
	for _, journal := range []string{"DELETE", "WAL"} {
		t.Run(journal, func(t *testing.T) {
			t.Parallel()
			s := newSource(t, models.SQLite, amandaTables)
			s.exec("PRAGMA journal_mode = " + journal)
			s.many(3, 2, 2)
			if err := s.db.Close(); err != nil {
				t.Fatal(err)
			}
			path := strings.TrimPrefix(s.url, "sqlite://")
			sum := func() string {
				content, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				return fmt.Sprintf("%x", sha256.Sum256(content))
			}
			before := sum()
			run(t, modelstest.New(t, models.SQLite), options(s.url))
			wantEqual(t, "file", sum(), before)
		})
	}
}

// A path may hold what has a meaning in a URL.
func TestThePathOfTheSourceIsDecoded(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a file?x#50%.db")
	s := &source{t: t}
	var err error
	if s.db, err = sql.Open(sqliteshim.ShimName, (&url.URL{Scheme: "file", OmitHost: true, Path: path}).String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.db.Close() })
	s.exec(strings.NewReplacer("{id}", "INTEGER PRIMARY KEY", "{time}", "DATETIME").Replace(tenaTables))
	s.exec(`INSERT INTO "user" (email, password_hash) VALUES ('ann@example.org', '')`)
	report := run(t, modelstest.New(t, models.SQLite), options("sqlite://"+(&url.URL{Path: path}).EscapedPath()))
	wantEqual(t, "users", report.Users, importer.Tally{Total: 1, Brought: 1})
}
