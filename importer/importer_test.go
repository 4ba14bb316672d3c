package importer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/auth"
	"parley/importer"
	"parley/models"
	"parley/models/modelstest"
)

func TestAmandaComesOver(t *testing.T) {
	t.Parallel()
	eachPair(t, func(t *testing.T, from string, db *models.DB) {
		s := newSource(t, from, amandaTables)
		s.exec(`
			INSERT INTO users VALUES
				(3, 'ann@example.org', 'pbkdf2:sha256:1$s$a', '2024-03-01 08:00:00.000001'),
				(7, 'bob.smith@example.org', 'pbkdf2:sha256:1$s$b', '2024-03-01 08:30:00');
			INSERT INTO chats VALUES
				(2, 7, 'New Chat', '2024-03-01 09:00:00.5'),
				(4, 3, 'Growing apart', '2024-03-01 09:01:00.25'),
				(5, 3, 'New Chat', '2024-03-01 09:02:00');
			INSERT INTO messages VALUES
				(10, 2, 'user', 'We argue about small things, and then for days', '2024-03-01 09:10:00'),
				(11, 4, 'user', 'Hello', '2024-03-01 09:20:00'),
				(12, 2, 'assistant', 'What was the last one about?', '2024-03-01 09:10:04.125'),
				(13, 4, 'assistant', '', '2024-03-01 09:20:01')`)
		report := run(t, db, options(s.url))

		wantEqual(t, "content", contentOf(t, db), content{
			Users: []models.User{
				{ID: 3, Email: "ann@example.org", UserName: "ann", PasswordHash: "pbkdf2:sha256:1$s$a", CreatedAt: at("08:00:00.000001")},
				{ID: 7, Email: "bob.smith@example.org", UserName: "bob.smith", PasswordHash: "pbkdf2:sha256:1$s$b", CreatedAt: at("08:30:00")},
			},
			Chats: []models.Chat{
				{
					ID: 2, UserID: 7, Title: "We argue about small things, and then…", Titled: true, CreatedAt: at("09:00:00.5"),
					MessageCount: 2, LastMessageAt: ptr(at("09:10:04.125")), ActiveAt: at("09:10:04.125"),
				},
				{
					ID: 4, UserID: 3, Title: "Growing apart", Titled: true, CreatedAt: at("09:01:00.25"),
					MessageCount: 2, LastMessageAt: ptr(at("09:20:01")), ActiveAt: at("09:20:01"),
				},
				{ID: 5, UserID: 3, Title: "New Chat", CreatedAt: at("09:02:00"), ActiveAt: at("09:02:00")},
			},
			Messages: []models.Message{
				{ID: 10, ChatID: 2, Role: "user", Content: "We argue about small things, and then for days", Status: "complete", Attempt: 1, CreatedAt: at("09:10:00")},
				{ID: 11, ChatID: 4, Role: "user", Content: "Hello", Status: "complete", Attempt: 1, CreatedAt: at("09:20:00")},
				{ID: 12, ChatID: 2, Role: "assistant", Content: "What was the last one about?", Status: "complete", Attempt: 1, CreatedAt: at("09:10:04.125")},
				{ID: 13, ChatID: 4, Role: "assistant", Status: "complete", Attempt: 1, CreatedAt: at("09:20:01")},
			},
		})
		kind := map[string]string{models.SQLite: "SQLite", models.Postgres: "PostgreSQL"}[from]
		wantEqual(t, "report", report.String(), "From Amanda's database, in "+kind+`:
  users: id, email, password_hash, created_at
  chats: id, user_id, title, created_at
  messages: id, chat_id, role, content, timestamp

              IN ALL   BROUGHT OVER   WITH ANOTHER ID   BEFORE   LEFT BEHIND
      users        2              2                 0        0             0
      chats        3              3                 0        0             0
   messages        4              4                 0        0             0
`)
	})
}

func TestTenaComesOver(t *testing.T) {
	t.Parallel()
	eachPair(t, func(t *testing.T, from string, db *models.DB) {
		s := newSource(t, from, tenaTables)
		s.exec(`
			INSERT INTO "user" VALUES
				(1, 'root', 'Root@Example.org', 'pbkdf2:sha256:1$s$a', TRUE, 'a-secret', '2024-03-02 08:00:00', '2024-03-01 08:00:00'),
				(2, NULL, 'bob@example.org', 'pbkdf2:sha256:1$s$b', NULL, NULL, NULL, '2024-03-01 08:30:00');
			INSERT INTO chat_session VALUES (1, 2, NULL, '2024-03-01 09:00:00'), (2, 1, '  Two lines  ', '2024-03-01 09:00:30');
			INSERT INTO message VALUES
				(1, 1, 'user', 'Hi', '2024-03-01 09:10:00'),
				(2, 1, 'ai', 'Hello', '2024-03-01 09:10:01'),
				(3, 1, 'AI', 'Are you there?', '2024-03-01 09:10:02'),
				(4, 1, 'bot', 'Well', '2024-03-01 09:10:03')`)
		report := run(t, db, options(s.url))

		said := func(id int64, role, text, clock string) models.Message {
			return models.Message{ID: id, ChatID: 1, Role: role, Content: text, Status: "complete", Attempt: 1, CreatedAt: at(clock)}
		}
		wantEqual(t, "content", contentOf(t, db), content{
			Users: []models.User{
				{ID: 1, Email: "root@example.org", UserName: "root", PasswordHash: "pbkdf2:sha256:1$s$a", IsAdmin: true, CreatedAt: at("08:00:00")},
				{ID: 2, Email: "bob@example.org", UserName: "bob", PasswordHash: "pbkdf2:sha256:1$s$b", CreatedAt: at("08:30:00")},
			},
			Chats: []models.Chat{
				{
					ID: 1, UserID: 2, Title: "Hi", Titled: true, CreatedAt: at("09:00:00"),
					MessageCount: 4, LastMessageAt: ptr(at("09:10:03")), ActiveAt: at("09:10:03"),
				},
				{ID: 2, UserID: 1, Title: "Two lines", Titled: true, CreatedAt: at("09:00:30"), ActiveAt: at("09:00:30")},
			},
			Messages: []models.Message{
				said(1, "user", "Hi", "09:10:00"),
				said(2, "assistant", "Hello", "09:10:01"),
				said(3, "assistant", "Are you there?", "09:10:02"),
				said(4, "assistant", "Well", "09:10:03"),
			},
		})
		wantEqual(t, "columns", report.Columns[0], importer.Columns{
			Table:  "user",
			Read:   []string{"id", "email", "password_hash", "username", "is_admin", "created_at"},
			Behind: []string{"reset_token", "reset_token_expiry"},
		})
		var resets int
		if err := db.Bun().NewRaw("SELECT count(*) FROM password_resets").Scan(t.Context(), &resets); err != nil || resets != 0 {
			t.Errorf("got %d password resets, %v", resets, err)
		}
	})
}

// The hashes were made by the libraries that the services used: Werkzeug 3.1.8
// and 1, and Python's bcrypt 3.2.2.
func TestEverybodySignsInWithTheOldPassword(t *testing.T) {
	t.Parallel()
	const password = "Grüße aus Köln"
	hashes := []string{
		"pbkdf2:sha256:150000$IAvsSOE2$a2313aeb835ac5be0bb12ba007e1fe1d6f587725c72dc91c3bc966357b0256ca",
		"scrypt:32768:8:1$kq9Zt3vBnM1xRw7L$e43176c64a3ee0c857435a204d13639fc8ed521c48192bfa684f12abb39d4be2354343e191a3698c905c42380fbddce6f3789f1393c4b6710c487657900d1f10",
		"$2b$12$mCBJIfgNZapP706i4Iy7F.kS.oAPu99.n7DrYhguwNJhV9.O60ef6",
	}
	passwords := auth.NewPasswords(auth.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1}, 16)
	ended, end := context.WithCancel(t.Context())
	end()
	eachPair(t, func(t *testing.T, from string, db *models.DB) {
		s := newSource(t, from, amandaTables)
		for i, hash := range append(hashes, "5f4dcc3b5aa765d61d8327deb882cf99") { // MD5 last
			s.exec(fmt.Sprintf("INSERT INTO users VALUES (%d, 'person%d@example.org', '%s', '2024-03-01 08:00:00')", i+1, i+1, hash))
		}
		o := options(s.url)
		o.KnownHash = func(hash string) bool {
			_, _, err := passwords.Verify(ended, hash, "")
			return !errors.Is(err, auth.ErrBadHash)
		}
		report := run(t, db, o)
		for i := range hashes {
			u, err := db.UserByEmail(t.Context(), fmt.Sprintf("person%d@example.org", i+1))
			if err != nil {
				t.Fatal(err)
			}
			if ok, rehash, err := passwords.Verify(t.Context(), u.PasswordHash, password); !ok || !rehash || err != nil {
				t.Errorf("%s: got %v, %v, %v", u.PasswordHash, ok, rehash, err)
			}
			if ok, _, err := passwords.Verify(t.Context(), u.PasswordHash, "Grüße aus Bonn"); ok || err != nil {
				t.Errorf("%s: got %v, %v for another password", u.PasswordHash, ok, err)
			}
		}
		wantEqual(t, "accounts to reset", report.Unknown.String(), "1 users: the password hash is of no known kind, so it has to be reset (4)")
	})
}

func TestIDsAreKeptWhereFree(t *testing.T) {
	t.Parallel()
	eachPair(t, func(t *testing.T, from string, db *models.DB) {
		ctx := t.Context()
		// Here are users 1 and 2, chat 1, messages 1 and 2; user 2 is gone, which
		// makes the id no freer.
		var mine models.User
		for i, email := range []string{"root@example.org", "gone@example.org"} {
			u := models.User{Email: email}
			if err := db.CreateUser(ctx, &u, &models.DeviceSession{SID: email}, models.By{}); err != nil {
				t.Fatal(err)
			}
			if i == 0 {
				mine = u
			}
		}
		ex, err := db.AppendTurn(ctx, models.NewTurn{UserID: mine.ID, Content: "Mine", Owner: "r"})
		if err != nil {
			t.Fatal(err)
		}
		exec(t, db, "DELETE FROM users WHERE id = 2")

		s := newSource(t, from, amandaTables)
		s.exec(`
			INSERT INTO users VALUES (1, 'a@example.org', '', '2024-03-01 08:00:00'), (2, 'b@example.org', '', '2024-03-01 08:00:00'),
				(3, 'c@example.org', '', '2024-03-01 08:00:00'), (40, 'd@example.org', '', '2024-03-01 08:00:00');
			INSERT INTO chats VALUES (1, 1, 'one', '2024-03-01 09:00:00'), (2, 3, 'two', '2024-03-01 09:00:00');
			INSERT INTO messages VALUES
				(1, 2, 'user', 'two, first', '2024-03-01 09:10:00'),
				(3, 1, 'user', 'one, first', '2024-03-01 09:10:00'),
				(4, 2, 'assistant', 'two, second', '2024-03-01 09:10:01'),
				(9, 1, 'assistant', 'one, second', '2024-03-01 09:10:02'),
				(8, 1, 'user', 'one, third', '2024-03-01 09:10:03'),
				(20, 2, 'user', 'two, third', '2024-03-01 09:10:04')`)
		report := run(t, db, options(s.url))
		wantEqual(t, "renumbered", []int64{report.Users.Renumbered, report.Chats.Renumbered, report.Messages.Renumbered}, []int64{2, 1, 4})

		got := contentOf(t, db)
		var names []string
		for _, u := range got.Users {
			names = append(names, fmt.Sprint(u.ID, " ", u.Email))
		}
		for _, c := range got.Chats {
			names = append(names, fmt.Sprint(c.ID, " ", c.Title, " of ", c.UserID))
		}
		for _, m := range got.Messages {
			names = append(names, fmt.Sprint(m.ID, " ", m.Content, " in ", m.ChatID))
		}
		// The second and third messages of the first chat have ids that do not
		// ascend with the time; all of the second chat's come after its first.
		wantEqual(t, "ids", names, []string{
			"1 root@example.org", "3 c@example.org", "40 d@example.org", "41 a@example.org", "42 b@example.org",
			fmt.Sprint(ex.Chat.ID, " Mine of 1"), "2 two of 3", "3 one of 41",
			fmt.Sprint(ex.User.ID, " Mine in 1"), fmt.Sprint(ex.Reply.ID, "  in 1"),
			"3 one, first in 3", "9 one, second in 3",
			"21 one, third in 3", "22 two, first in 2", "23 two, second in 2", "24 two, third in 2",
		})

		next, err := db.AppendTurn(ctx, models.NewTurn{UserID: 41, Content: "Next", Owner: "r"})
		if err != nil || next.Chat.ID != 4 || next.User.ID != 25 || next.Reply.ID != 26 {
			t.Errorf("got %+v, %v for what comes next", next, err)
		}
	})
}

func TestASecondRunBringsWhatIsNew(t *testing.T) {
	t.Parallel()
	eachPair(t, func(t *testing.T, from string, db *models.DB) {
		ctx := t.Context()
		s := newSource(t, from, amandaTables)
		s.many(4, 2, 3)
		first := run(t, db, options(s.url))
		wantEqual(t, "first", first.Messages, importer.Tally{Total: 24, Brought: 24})
		before := contentOf(t, db)
		again := run(t, db, options(s.url))
		wantEqual(t, "second", []importer.Tally{again.Users, again.Chats, again.Messages}, []importer.Tally{
			{Total: 4, Known: 4}, {Total: 8, Known: 8}, {Total: 24, Known: 24},
		})
		wantEqual(t, "content after the second", contentOf(t, db), before)

		// Life goes on, here and there.
		if _, err := db.DeleteUser(ctx, 1, "", 0, models.By{}); err != nil {
			t.Fatal(err)
		}
		if _, err := db.DeleteChat(ctx, 2, 3); err != nil {
			t.Fatal(err)
		}
		turn, err := db.AppendTurn(ctx, models.NewTurn{UserID: 2, ChatID: 4, Content: "Said here", Owner: "r"})
		if err != nil {
			t.Fatal(err)
		}
		s.exec(`
			INSERT INTO users VALUES (5, 'new@example.org', '', '2024-03-02 08:00:00');
			INSERT INTO chats VALUES (9, 5, 'of the new one', '2024-03-02 09:00:00'), (10, 1, 'of the deleted one', '2024-03-02 09:00:00');
			INSERT INTO messages VALUES
				(25, 4, 'user', 'Said there', '2024-03-02 09:00:00'),
				(26, 3, 'user', 'In the deleted one', '2024-03-02 09:00:00'),
				(27, 9, 'user', 'In the new one', '2024-03-02 09:00:00'),
				(28, 5, 'user', 'In an old one', '2024-03-02 09:00:00')`)
		third := run(t, db, options(s.url))
		wantEqual(t, "third", []importer.Tally{third.Users, third.Chats, third.Messages}, []importer.Tally{
			{Total: 5, Brought: 1, Known: 4},
			{Total: 10, Brought: 1, Known: 8, Behind: 1},
			{Total: 28, Brought: 3, Known: 24, Behind: 1, Renumbered: 3},
		})
		page, _, err := db.Messages(ctx, 2, 4, models.Page{})
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, m := range page {
			said = append(said, m.Content)
		}
		wantEqual(t, "the chat that went on in both", said, []string{
			"Text 10, with some words in it", "Text 11, with some words in it", "Text 12, with some words in it", "Said here", "", "Said there",
		})
		chat, err := db.Chat(ctx, 2, 4)
		wantEqual(t, "its counters", []any{chat.MessageCount, *chat.LastMessageAt, err}, []any{int64(6), turn.User.CreatedAt, nil})
	})
}

func TestAnInterruptedRunIsGoneOnWith(t *testing.T) {
	t.Parallel()
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			s := newSource(t, models.SQLite, amandaTables)
			s.many(20, 3, 5)
			whole := modelstest.New(t, dialect)
			run(t, whole, options(s.url))
			want := contentOf(t, whole)

			for _, batches := range []int{1, 2, 4, 9, 20} {
				db := modelstest.New(t, dialect)
				ctx, cancel := context.WithCancel(t.Context())
				o := options(s.url)
				o.Batch = 7
				seen := 0
				o.Progress = func(*importer.Report) {
					if seen++; seen == batches {
						cancel()
					}
				}
				first, err := importer.Run(ctx, db, o)
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("got %v after %d batches", err, batches)
				}
				second := run(t, db, options(s.url))
				wantEqual(t, "brought over in all", second.Messages.Brought+first.Messages.Brought, int64(300))
				wantEqual(t, "known to the second", second.Users.Known, first.Users.Brought)
				wantEqual(t, "content", contentOf(t, db), want)
			}
		})
	}
}

func TestABatchThatFailsLeavesNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.many(4, 3, 5)
		refuse, allow := "ALTER TABLE messages ADD CONSTRAINT fault CHECK (id <> 33)", "ALTER TABLE messages DROP CONSTRAINT fault"
		if db.Dialect() == models.SQLite {
			refuse = "CREATE TRIGGER fault BEFORE INSERT ON messages WHEN new.id = 33 BEGIN SELECT RAISE(ABORT, 'fault'); END"
			allow = "DROP TRIGGER fault"
		}
		exec(t, db, refuse)
		o := options(s.url)
		o.Batch = 10
		report, err := importer.Run(t.Context(), db, o)
		if err == nil || !strings.Contains(err.Error(), "fault") {
			t.Errorf("got %v", err)
		}
		got := contentOf(t, db)
		wantEqual(t, "brought over", []int{len(got.Users), len(got.Chats), len(got.Messages)}, []int{4, 6, 30})
		wantEqual(t, "reported", []int64{report.Users.Brought, report.Chats.Brought, report.Messages.Brought}, []int64{4, 6, 30})

		exec(t, db, allow)
		run(t, db, o)
		whole := modelstest.New(t, db.Dialect())
		run(t, whole, options(s.url))
		wantEqual(t, "content", contentOf(t, db), contentOf(t, whole))
	})
}

func TestSeveralRunsAtOnceDoTheWorkOfOne(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.many(30, 4, 4)
		o := options(s.url)
		o.Batch = 11
		reports := make([]importer.Report, 4)
		var all sync.WaitGroup
		start := make(chan struct{})
		for i := range reports {
			all.Go(func() {
				<-start
				var err error
				if reports[i], err = importer.Run(t.Context(), db, o); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		all.Wait()
		var sum importer.Report
		for _, r := range reports {
			balanced(t, r)
			sum.Users.Brought += r.Users.Brought
			sum.Chats.Brought += r.Chats.Brought
			sum.Messages.Brought += r.Messages.Brought
			if r.Behind != nil {
				t.Errorf("left behind: %v", r.Behind)
			}
		}
		wantEqual(t, "brought", []int64{sum.Users.Brought, sum.Chats.Brought, sum.Messages.Brought}, []int64{30, 120, 480})
		whole := modelstest.New(t, db.Dialect())
		run(t, whole, options(s.url))
		wantEqual(t, "content", contentOf(t, db), contentOf(t, whole))
	})
}

func TestARunWaitsForTheBatchOfAnother(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	s := newSource(t, models.SQLite, amandaTables)
	s.many(1, 1, 1)
	tx, err := db.Bun().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.Exec("SELECT pg_advisory_xact_lock(?)", importer.Lock); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := importer.Run(t.Context(), db, options(s.url))
		done <- err
	}()
	for waits := false; !waits; {
		select {
		case err := <-done:
			t.Fatalf("it does not wait: %v", err)
		default:
		}
		err := tx.QueryRow(`SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Behind a pooler in transaction mode no two transactions share a session.
func TestAPoolerMayStandInBetween(t *testing.T) {
	t.Parallel()
	url := modelstest.PooledURL(t)
	db, err := models.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	s := newSource(t, models.SQLite, amandaTables)
	s.many(5, 2, 3)
	o := options(s.url)
	o.Batch = 4
	run(t, db, o)

	moved := modelstest.New(t, models.SQLite)
	run(t, moved, options(url))
	wantEqual(t, "content", contentOf(t, moved), contentOf(t, db))
}

func TestADryRunReportsAndWritesNothing(t *testing.T) {
	t.Parallel()
	eachPair(t, func(t *testing.T, from string, db *models.DB) {
		s := newSource(t, from, amandaTables)
		s.many(5, 2, 3)
		s.exec(`UPDATE users SET email = 'PERSON1@example.org' WHERE id = 3; UPDATE users SET email = 'nowhere' WHERE id = 4;
			UPDATE messages SET role = 'tool' WHERE id = 2`)
		mine := models.User{Email: "person2@example.org"}
		if err := db.CreateUser(t.Context(), &mine, &models.DeviceSession{SID: "s"}, models.By{}); err != nil {
			t.Fatal(err)
		}
		before := contentOf(t, db)
		o := options(s.url)
		o.DryRun = true
		dry := run(t, db, o)
		wantEqual(t, "content", contentOf(t, db), before)
		var left int
		err := db.Bun().NewRaw(`SELECT (SELECT count(*) FROM imports) + (SELECT count(*) FROM imported_users)
			+ (SELECT count(*) FROM imported_chats) + (SELECT count(*) FROM audit_entries WHERE action = 'account.imported')`).Scan(t.Context(), &left)
		if err != nil || left != 0 {
			t.Errorf("got %d rows, %v", left, err)
		}
		next := models.User{Email: "next@example.org"}
		if err := db.CreateUser(t.Context(), &next, &models.DeviceSession{SID: "t"}, models.By{}); err != nil || next.ID != 2 {
			t.Errorf("got %d for the next id, %v", next.ID, err)
		}
		exec(t, db, "DELETE FROM users WHERE id = 2")

		o.DryRun = false
		wet := run(t, db, o)
		dry.DryRun = false
		// The id 2 was given in between.
		wantEqual(t, "renumbered", wet.Users.Renumbered, dry.Users.Renumbered)
		wantEqual(t, "report", dry.String(), wet.String())

		o.DryRun = true
		dry = run(t, db, o)
		wet = run(t, db, options(s.url))
		dry.DryRun = false
		wantEqual(t, "report of what is known", dry.String(), wet.String())
	})
}

func TestTheAuditNamesWhoCameOver(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.exec("INSERT INTO users VALUES (7, 'ann@example.org', '', '2024-03-01 08:00:00')")
		run(t, db, options(s.url))
		entries, _, err := db.AuditEntries(t.Context(), models.Page{})
		if err != nil || len(entries) != 1 {
			t.Fatalf("got %v, %v", entries, err)
		}
		e := entries[0]
		e.ID, e.At = 0, at("00:00:00")
		wantEqual(t, "entry", e, models.AuditEntry{
			At: at("00:00:00"), Action: "account.imported", SubjectID: 7, SubjectEmail: "ann@example.org",
			Detail: "from Amanda, where it had the id 7",
		})
	})
}

func TestWhatComesOverIsFound(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		s := newSource(t, models.SQLite, amandaTables)
		s.exec(`
			INSERT INTO users VALUES (1, 'ann@example.org', '', '2024-03-01 08:00:00');
			INSERT INTO chats VALUES (1, 1, 'Growing apart', '2024-03-01 09:00:00'), (2, 1, 'Vacations', '2024-03-01 09:00:00'),
				(3, 1, 'Silence', '2024-03-01 09:00:00');
			INSERT INTO messages VALUES
				(1, 1, 'user', 'We quarrel', '2024-03-01 09:10:00'), (2, 1, 'assistant', 'About money?', '2024-03-01 09:10:01'),
				(3, 1, 'user', 'Rarely', '2024-03-01 09:10:02'), (4, 1, 'user', 'About dishes', '2024-03-01 09:10:03'),
				(5, 2, 'user', 'Mountains or the sea', '2024-03-01 09:10:00')`)
		run(t, db, options(s.url))
		for {
			n, err := db.IndexTexts(t.Context(), 100)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
		}
		for text, want := range map[string]int64{
			"growing": 1, "quarrel": 1, "money": 1, "rarely": 1, "dishes": 1, "vacation": 2, "mountains": 2, "silence": 3,
		} {
			found, _, err := db.SearchChats(t.Context(), 1, text, models.Page{})
			if err != nil || len(found) != 1 || found[0].ID != want {
				t.Errorf("%s: got %v, %v; want chat %d", text, found, err, want)
			}
		}
	})
}
