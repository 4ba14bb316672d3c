package mail_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"parley/mail"
	"parley/models"
	"parley/models/modelstest"
)

func TestWhatBecomesOfAMailThatIsRefused(t *testing.T) {
	t.Parallel()
	const quote = "who is " + address + "?" // servers do say such things
	info := func(err string) []string {
		return []string{"INFO mail is put off id=1 kind=password_changed attempts=1 err=" + err}
	}
	dropped := func(err string) []string {
		return []string{"WARN mail is dropped, the server will never take it id=1 kind=password_changed err=" + err}
	}
	waits := func(err string) []waiting { return []waiting{{address, 1, err}} }
	for name, tt := range map[string]struct {
		server *mailServer
		want   []waiting
		log    []string
		err    string // of the round
	}{
		"the recipient, for a while": {
			server: &mailServer{rcpt: refuses(451, smtp.EnhancedCode{4, 7, 1}, quote)},
			want:   waits("RCPT: 451 4.7.1"), log: info("RCPT: 451 4.7.1"),
		},
		"the recipient, for a while, without a status": {
			server: &mailServer{rcpt: refuses(450, smtp.NoEnhancedCode, quote)},
			want:   waits("RCPT: 450"), log: info("RCPT: 450"),
		},
		"the recipient, for ever": {
			server: &mailServer{rcpt: refuses(550, smtp.EnhancedCode{5, 1, 1}, quote)},
			log:    dropped("RCPT: 550 5.1.1"),
		},
		"the message, for a while": {
			server: &mailServer{takes: func(received) error { return refusal(452, smtp.EnhancedCode{4, 3, 1}, quote) }},
			want:   waits("message: 452 4.3.1"), log: info("message: 452 4.3.1"),
		},
		"the message, for ever": {
			server: &mailServer{takes: func(received) error { return refusal(554, smtp.EnhancedCode{5, 6, 0}, quote) }},
			log:    dropped("message: 554 5.6.0"),
		},
		"the sender, which is not the reader's fault": {
			server: &mailServer{from: refuses(550, smtp.EnhancedCode{5, 7, 1}, quote)},
			want:   waits("MAIL: 550 5.7.1"), log: info("MAIL: 550 5.7.1"),
		},
		"everybody": {
			server: &mailServer{greets: func(*smtp.Conn) error { return refusal(554, smtp.EnhancedCode{5, 3, 2}, quote) }},
			want:   waits("EHLO: 554 5.3.2"), log: info("EHLO: 554 5.3.2"),
			err: "EHLO: 554 5.3.2",
		},
		"because the server ends": {
			server: &mailServer{rcpt: refuses(421, smtp.EnhancedCode{4, 3, 2}, quote)},
			want:   waits("RCPT: 421 4.3.2"), log: info("RCPT: 421 4.3.2"),
			err: "RCPT: 421 4.3.2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db *models.DB) {
				server := &mailServer{greets: tt.server.greets, from: tt.server.from, rcpt: tt.server.rcpt, takes: tt.server.takes}
				server.listen(t, plain)
				o, logs := outboxTo(t, server, db)
				post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
				if err := round(t, o); (err == nil) != (tt.err == "") || err != nil && err.Error() != tt.err {
					t.Errorf("got the error %v, want %q", err, tt.err)
				}
				if got := server.messages(); len(got) > 0 {
					t.Errorf("got %d messages, want none", len(got))
				}
				if diff := cmp.Diff(outbox(t, db), tt.want); diff != "" {
					t.Errorf("outbox (-got +want):\n%s", diff)
				}
				if diff := cmp.Diff(logs.all(), tt.log); diff != "" {
					t.Errorf("log (-got +want):\n%s", diff)
				}
			})
		})
	}
}

// refuses is an answer to any address.
func refuses(code int, status smtp.EnhancedCode, text string) func(string) error {
	return func(string) error { return refusal(code, status, text) }
}

func TestARefusedMailHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	server := &mailServer{
		rcpt: func(to string) error {
			switch {
			case strings.HasPrefix(to, "gone"):
				return refusal(550, smtp.EnhancedCode{5, 1, 1}, "no")
			case strings.HasPrefix(to, "full"):
				return refusal(452, smtp.EnhancedCode{4, 2, 2}, "no")
			}
			return nil
		},
		takes: func(m received) error {
			if strings.HasPrefix(m.to[0], "spam") {
				return refusal(554, smtp.EnhancedCode{5, 7, 1}, "no")
			}
			return nil
		},
	}
	server.listen(t, plain)
	o, _ := outboxTo(t, server, db)
	for _, recipient := range []string{"gone@example.org", "a@example.org", "full@example.org", "b@example.org", "spam@example.org", "no address", "c@example.org"} {
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: recipient})
	}
	if err := round(t, o); err != nil {
		t.Fatal(err)
	}
	type taken struct {
		to       string
		dialogue int
	}
	var got []taken
	for _, m := range server.messages() {
		got = append(got, taken{strings.Join(m.to, " "), m.dialogue})
	}
	want := []taken{{"a@example.org", 1}, {"b@example.org", 1}, {"c@example.org", 1}}
	if diff := cmp.Diff(got, want, cmp.AllowUnexported(taken{})); diff != "" {
		t.Errorf("taken (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(outbox(t, db), []waiting{{"full@example.org", 1, "RCPT: 452 4.2.2"}}); diff != "" {
		t.Errorf("outbox (-got +want):\n%s", diff)
	}
}

func TestAMailThatIsPutOffIsSentLater(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var free atomic.Bool
		server := &mailServer{rcpt: func(string) error {
			if !free.Load() {
				return refusal(451, smtp.EnhancedCode{4, 7, 1}, "come back later")
			}
			return nil
		}}
		server.listen(t, plain)
		o, _ := outboxTo(t, server, db)
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
		for range 3 {
			if err := round(t, o); err != nil {
				t.Fatal(err)
			}
			makeDue(t, db)
		}
		if diff := cmp.Diff(outbox(t, db), []waiting{{address, 3, "RCPT: 451 4.7.1"}}); diff != "" {
			t.Errorf("outbox (-got +want):\n%s", diff)
		}
		free.Store(true)
		if err := round(t, o); err != nil {
			t.Fatal(err)
		}
		if got := server.messages(); len(got) != 1 {
			t.Errorf("got %d messages, want 1", len(got))
		}
		if left := outbox(t, db); len(left) > 0 {
			t.Errorf("got %v left in the outbox, want nothing", left)
		}
	})
}

func TestPausesGrowFromSecondsToAQuarterOfAnHour(t *testing.T) {
	t.Parallel()
	var logs logs
	o, err := mail.New(config("", &logs), nil)
	if err != nil {
		t.Fatal(err)
	}
	for attempts, want := range map[int]time.Duration{
		1: 5 * time.Second, 2: 10 * time.Second, 3: 20 * time.Second, 8: 640 * time.Second, 9: 15 * time.Minute, 1000: 15 * time.Minute,
	} {
		different := make(map[time.Duration]bool)
		for range 50 {
			got := o.RetryIn(attempts)
			different[got] = true
			if got < want || got >= want+want/4 {
				t.Errorf("after %d attempts: got %v, want %v and up to a quarter more", attempts, got, want)
			}
		}
		if len(different) < 40 {
			t.Errorf("after %d attempts: got %d different pauses of 50, want them spread", attempts, len(different))
		}
	}
}

func TestAMailIsGivenUpAfterADay(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		server := &mailServer{rcpt: refuses(451, smtp.EnhancedCode{4, 7, 1}, "who is "+address+"?")}
		server.listen(t, plain)
		o, logs := outboxTo(t, server, db)
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "old@example.org", Attempts: 40, CreatedAt: time.Now().Add(-24*time.Hour - time.Minute)})
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address, Attempts: 40, CreatedAt: time.Now().Add(-23 * time.Hour)})
		if err := round(t, o); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(outbox(t, db), []waiting{{address, 41, "RCPT: 451 4.7.1"}}); diff != "" {
			t.Errorf("outbox (-got +want):\n%s", diff)
		}
		want := []string{
			"WARN mail is given up, it could not be sent for a day id=1 kind=password_changed err=RCPT: 451 4.7.1",
			"INFO mail is put off id=2 kind=password_changed attempts=41 err=RCPT: 451 4.7.1",
		}
		if diff := cmp.Diff(logs.all(), want); diff != "" {
			t.Errorf("log (-got +want):\n%s", diff)
		}
	})
}

func TestAnOldMailThatCanBeSentIsSent(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	server := serveSMTP(t, plain)
	o, _ := outboxTo(t, server, db)
	post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address, CreatedAt: time.Now().Add(-48 * time.Hour)})
	if err := round(t, o); err != nil {
		t.Fatal(err)
	}
	if got := server.messages(); len(got) != 1 {
		t.Errorf("got %d messages, want 1", len(got))
	}
}

func TestMailOfAKindThatIsNotKnownWaitsForALaterVersion(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	server := serveSMTP(t, plain)
	o, _ := outboxTo(t, server, db)
	post(t, db, models.Mail{Kind: "birthday", Recipient: address})
	post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
	if err := round(t, o); err != nil {
		t.Fatal(err)
	}
	if got := server.messages(); len(got) != 1 {
		t.Errorf("got %d messages, want 1", len(got))
	}
	if diff := cmp.Diff(outbox(t, db), []waiting{{address, 1, "no template for mail of this kind"}}); diff != "" {
		t.Errorf("outbox (-got +want):\n%s", diff)
	}
}

func TestHostileRecipientsGetNothing(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		server := serveSMTP(t, plain)
		o, logs := outboxTo(t, server, db)
		hostile := []string{
			"",
			"you",
			"you@example.org\r\nBcc: all@example.org",
			"you@example.org\nDATA",
			"you@example.org, all@example.org",
			"You <you@example.org>",
			"<you@example.org>",
			"you@example.org> NOTIFY=SUCCESS",
			"you@example.org>\r\nRCPT TO:<all@example.org",
			"(a comment) you@example.org",
			`"a b"@example.org`,
			`"a\"\r\n b"@example.org`,
			"you@ex\u00e4mple.org",
			" you@example.org",
			"you@example.org ",
			"group: you@example.org;",
			"you@example.org\t",
		}
		for _, recipient := range hostile {
			post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: recipient})
		}
		for range hostile {
			if err := round(t, o); err != nil {
				t.Fatal(err)
			}
		}
		if got := server.messages(); len(got) > 0 {
			t.Errorf("got %d messages, want none: %v to %q", len(got), got[0].raw, got[0].to)
		}
		if left := outbox(t, db); len(left) > 0 {
			t.Errorf("got %v left in the outbox, want nothing", left)
		}
		var want []string
		for i := range hostile {
			want = append(want, fmt.Sprintf("WARN mail is dropped, the server will never take it id=%d kind=password_changed err=recipient: not an address that mail can be sent to", i+1))
		}
		if diff := cmp.Diff(logs.all(), want); diff != "" {
			t.Errorf("log (-got +want):\n%s", diff)
		}
	})
}

// A lossy is a mail server that takes messages and then hangs up, and its
// answer to the first of them is what a test says.
type lossy struct {
	answer string // to the whole of the first message
	mu     sync.Mutex
	taken  []string
}

// recipients are those of the whole messages that came so far.
func (l *lossy) recipients() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.taken)
}

func (l *lossy) handle(_ context.Context, conn net.Conn) {
	fmt.Fprint(conn, "220 here\r\n")
	var (
		message bool
		to      string
	)
	converse(conn, func(line string) string {
		switch {
		case message && line == ".":
			l.mu.Lock()
			defer l.mu.Unlock()
			l.taken = append(l.taken, to)
			message = false
			if len(l.taken) == 1 {
				if l.answer != "" {
					fmt.Fprintf(conn, "%s\r\n", l.answer)
				}
				return ""
			}
		case message:
			return noAnswer
		case strings.HasPrefix(line, "RCPT TO:"):
			to = strings.TrimPrefix(line, "RCPT TO:")
		case line == "DATA":
			message = true
			return "354 go on"
		}
		return "250 fine"
	})
}

func TestAMessageIsSentAgainOnlyIfItsAnswerWasLost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		answer string
		want   []string
		lost   string
	}{
		"it was answered, and then the connection broke":   {"250 fine", []string{"<a@example.org>", "<b@example.org>"}, "MAIL: the server has hung up"},
		"the connection broke before it was answered":      {"", []string{"<a@example.org>", "<a@example.org>", "<b@example.org>"}, "message: the server has hung up"},
		"the connection broke in the middle of the answer": {"250-fine, and", []string{"<a@example.org>", "<a@example.org>", "<b@example.org>"}, "message: the server has hung up"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			modelstest.Each(t, func(t *testing.T, db *models.DB) {
				server := &lossy{answer: tt.answer}
				var logs logs
				o := newOutbox(t, config("smtp://"+script(t, server.handle), &logs), db)
				post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "a@example.org"})
				post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "b@example.org", CreatedAt: time.Now().Add(time.Millisecond)})
				if err := round(t, o); err == nil || !strings.HasPrefix(err.Error(), strings.Split(tt.lost, ":")[0]) {
					t.Errorf("got the error %v, want %s", err, tt.lost)
				}
				makeDue(t, db)
				if err := round(t, o); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(server.recipients(), tt.want); diff != "" {
					t.Errorf("taken (-got +want):\n%s", diff)
				}
				if left := outbox(t, db); len(left) > 0 {
					t.Errorf("got %v left in the outbox, want nothing", left)
				}
			})
		})
	}
}

func TestAServerThatIsDownCostsOnlyTime(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		nowhere := listener.Addr().String()
		listener.Close()
		var logs logs
		o := newOutbox(t, config("smtp://"+nowhere, &logs), db)
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "a@example.org"})
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "b@example.org", CreatedAt: time.Now().Add(time.Millisecond)})
		want := "connect: dial tcp " + nowhere + ": connect: connection refused"
		if err := round(t, o); err == nil || err.Error() != want {
			t.Errorf("got the error %v, want %s", err, want)
		}
		// One try a round: the others wait with it.
		if diff := cmp.Diff(outbox(t, db), []waiting{{"a@example.org", 1, want}, {"b@example.org", 0, ""}}); diff != "" {
			t.Errorf("outbox (-got +want):\n%s", diff)
		}
		makeDue(t, db)
		server := serveSMTP(t, plain)
		o.DialTo(server.address)
		run(t, o)
		server.await(t, 2)
	})
}

func TestReplicasSendEachMailOnce(t *testing.T) {
	t.Parallel()
	const mails, replicas = 60, 3
	for _, dialect := range modelstest.Dialects {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			url := modelstest.URL(t, dialect)
			server := serveSMTP(t, plain)
			want := make(map[string]int)
			var stops []func()
			for i := range replicas {
				db, err := models.Open(t.Context(), url)
				if err != nil {
					t.Fatal(err)
				}
				defer db.Close()
				if i == 0 {
					for j := range mails {
						recipient := fmt.Sprintf("user%d@example.org", j)
						want[recipient] = 1
						post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: recipient})
					}
				}
				o, _ := outboxTo(t, server, db)
				stops = append(stops, run(t, o))
				if i == replicas-1 {
					defer func() {
						if left := outbox(t, db); len(left) > 0 {
							t.Errorf("got %v left in the outbox, want nothing", left)
						}
					}()
				}
			}
			server.await(t, mails)
			for _, stop := range stops {
				stop()
			}
			got := make(map[string]int)
			for _, m := range server.messages() {
				got[m.to[0]]++
			}
			if !maps.Equal(got, want) {
				t.Errorf("messages by recipient (-got +want):\n%s", cmp.Diff(got, want))
			}
		})
	}
}

func TestAMessageOnItsWayIsFinishedAtTheEnd(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		arrived, goOn := make(chan struct{}), make(chan struct{})
		server := &mailServer{takes: func(received) error {
			close(arrived)
			<-goOn
			return nil
		}}
		server.listen(t, plain)
		o, _ := outboxTo(t, server, db)
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "a@example.org"})
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: "b@example.org", CreatedAt: time.Now().Add(time.Millisecond)})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			o.Run(ctx)
		}()
		<-arrived
		cancel()
		close(goOn)
		<-ended
		if got := server.messages(); len(got) != 1 || !slices.Equal(got[0].to, []string{"a@example.org"}) {
			t.Errorf("got %v, want the one message", got)
		}
		if diff := cmp.Diff(outbox(t, db), []waiting{{"b@example.org", 0, ""}}); diff != "" {
			t.Errorf("outbox (-got +want):\n%s", diff)
		}
	})
}

func TestAMailThatWaitsForTheServerIsLeftToOthersAtTheEnd(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		called := make(chan struct{}, 1)
		var logs logs
		o := newOutbox(t, config("smtp://"+script(t, func(ctx context.Context, _ net.Conn) {
			called <- struct{}{}
			<-ctx.Done()
		}), &logs), db)
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
		stop := run(t, o)
		<-called
		stop()
		if diff := cmp.Diff(outbox(t, db), []waiting{{address, 1, "the replica has ended"}}); diff != "" {
			t.Errorf("outbox (-got +want):\n%s", diff)
		}
		server := serveSMTP(t, plain)
		other, _ := outboxTo(t, server, db)
		if err := round(t, other); err != nil {
			t.Fatal(err)
		}
		if got := server.messages(); len(got) != 1 {
			t.Errorf("another replica sends %d messages, want 1", len(got))
		}
	})
}

func TestTheDatabaseIsToldUntilItHasHeard(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.Postgres)
	for _, statement := range []string{
		`CREATE SEQUENCE deletions`,
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			IF nextval('deletions') < 4 THEN RAISE EXCEPTION 'not yet'; END IF;
			RETURN OLD;
		END $$`,
		`CREATE TRIGGER refuse BEFORE DELETE ON mails FOR EACH ROW EXECUTE FUNCTION refuse()`,
	} {
		if _, err := db.Bun().ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	server := serveSMTP(t, plain)
	o, _ := outboxTo(t, server, db)
	o.Hurry()
	post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
	if err := round(t, o); err != nil {
		t.Error(err)
	}
	var deletions int
	if err := db.Bun().NewRaw("SELECT last_value FROM deletions").Scan(t.Context(), &deletions); err != nil {
		t.Fatal(err)
	}
	if got := server.messages(); len(got) != 1 || deletions != 4 {
		t.Errorf("got %d messages after %d tries to say so, want 1 after 4", len(got), deletions)
	}
	if left := outbox(t, db); len(left) > 0 {
		t.Errorf("got %v left in the outbox, want nothing", left)
	}
}

func TestADatabaseThatIsDownIsLoggedAndTriedAgain(t *testing.T) {
	t.Parallel()
	db, err := models.Open(t.Context(), modelstest.URL(t, models.SQLite))
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	server := serveSMTP(t, plain)
	o, logs := outboxTo(t, server, db)
	if err := round(t, o); !errors.Is(err, models.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	stop := run(t, o)
	for deadline := time.Now().Add(patience); len(logs.all()) < 2 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	stop()
	if lines := logs.all(); len(lines) < 2 {
		t.Errorf("got the log %q, want a line for each try", lines)
	}
	for _, line := range logs.all() {
		if !strings.HasPrefix(line, "WARN mail waits, trying again err=") {
			t.Errorf("got the log line %q", line)
		}
	}
}
