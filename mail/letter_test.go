package mail_test

import (
	"flag"
	"html"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	netmail "net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/models"
	"parley/models/modelstest"
)

var update = flag.Bool("update", false, "write what is rendered to testdata, to be read by a person")

// A parsed is a message as a mail program reads it.
type parsed struct {
	Header     netmail.Header // without what differs each time
	Date       time.Time
	MessageID  string
	Text, HTML string
}

// parse reads a multipart/alternative message by RFC 5322 and 2045.
func parse(t *testing.T, raw string) parsed {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	p := parsed{Header: m.Header, MessageID: m.Header.Get("Message-Id")}
	if p.Date, err = m.Header.Date(); err != nil {
		t.Error(err)
	}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for _, varying := range []string{"Date", "Message-Id"} {
		delete(m.Header, varying)
	}
	m.Header["Content-Type"] = []string{kind}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for _, want := range []struct {
		kind string
		to   *string
	}{{"text/plain; charset=UTF-8", &p.Text}, {"text/html; charset=UTF-8", &p.HTML}} {
		part, err := parts.NextPart() // decodes quoted-printable
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		if got := part.Header.Get("Content-Type"); got != want.kind {
			t.Errorf("got a part of type %q, want %q", got, want.kind)
		}
		*want.to = strings.ReplaceAll(string(body), "\r\n", "\n")
	}
	if _, err := parts.NextPart(); err != io.EOF {
		t.Errorf("behind the two parts: got %v, want the end", err)
	}
	return p
}

// headers are those of every message of these tests, but its subject.
func headers(subject string) netmail.Header {
	return netmail.Header{
		"From":           {`"Parley" <parley@example.com>`},
		"To":             {"<" + address + ">"},
		"Subject":        {subject},
		"Mime-Version":   {"1.0"},
		"Auto-Submitted": {"auto-generated"},
		"Content-Type":   {"multipart/alternative"},
	}
}

func TestAMessageIsWholeInEachOfItsParts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		mail    models.Mail
		subject string
	}{
		"password_changed": {
			mail:    models.Mail{Kind: models.MailPasswordChanged, Data: map[string]string{"ip": "203.0.113.7"}},
			subject: "Your password for Parley was changed",
		},
		"password_changed, with nothing known": {
			mail:    models.Mail{Kind: models.MailPasswordChanged},
			subject: "Your password for Parley was changed",
		},
		"session_reused": {
			mail:    models.Mail{Kind: models.MailSessionReused, Data: map[string]string{"ip": "2001:db8::7", "device": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"}},
			subject: "A device was signed out of Parley",
		},
		"session_reused, with nothing known": {
			mail:    models.Mail{Kind: models.MailSessionReused},
			subject: "A device was signed out of Parley",
		},
		"email_changed": {
			mail:    models.Mail{Kind: models.MailEmailChanged, Data: map[string]string{"ip": "203.0.113.7", "new_email": "m…@example.net"}},
			subject: "The address of your account at Parley was changed",
		},
		"email_changed, with nothing known": {
			mail:    models.Mail{Kind: models.MailEmailChanged},
			subject: "The address of your account at Parley was changed",
		},
		"session_reused, by a hostile device": {
			mail: models.Mail{Kind: models.MailSessionReused, Data: map[string]string{
				"ip":     "<b>1</b>",
				"device": "\"><script>alert(1)</script>\r\nSubject: won\r\n\r\n-- \u202e\x00{{.Link}}\u2028" + strings.Repeat("x", 100),
			}},
			subject: "A device was signed out of Parley",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			server := serveSMTP(t, plain)
			o, _ := outboxTo(t, server, db)
			tt.mail.Recipient, tt.mail.CreatedAt = address, noon
			post(t, db, tt.mail)
			if err := round(t, o); err != nil {
				t.Fatal(err)
			}
			got := server.messages()
			if len(got) != 1 {
				t.Fatalf("got %d messages, want 1", len(got))
			}
			checkMessage(t, name, got[0], tt.subject)
		})
	}
}

// checkMessage compares a message that was posted at noon with the golden files
// of that name.
func checkMessage(t *testing.T, name string, got received, subject string) {
	t.Helper()
	if got.from != "parley@example.com" || !slices.Equal(got.to, []string{address}) {
		t.Errorf("got an envelope from %s to %s, want one from parley@example.com to %s", got.from, got.to, address)
	}
	if long := regexp.MustCompile(`[^\r\n]{79,}|[^\x00-\x7f]|[^\r]\n`).FindString(got.raw); long != "" {
		t.Errorf("got a line that is long, not ASCII or ends in LF alone: %q", long)
	}
	m := parse(t, got.raw)
	if diff := cmp.Diff(m.Header, headers(subject)); diff != "" {
		t.Errorf("headers (-got +want):\n%s", diff)
	}
	if age := time.Since(m.Date); age < -time.Second || age > patience {
		t.Errorf("got the date %v, want the present", m.Date)
	}
	if !regexp.MustCompile(`^<[A-Z2-7]{26}@example\.com>$`).MatchString(m.MessageID) {
		t.Errorf("got the message id %s, want a random one at example.com", m.MessageID)
	}
	golden(t, name+".txt", m.Text)
	golden(t, name+".html", m.HTML)

	if got, want := words(m.Text), words(visible(m.HTML)); got != want {
		t.Errorf("the text says something else than the page (-text +page):\n%s", cmp.Diff(got, want))
	}
	if remote := regexp.MustCompile(`(?i)<(img|script|link|iframe|object|video)|\bsrc=|url\(`).FindString(m.HTML); remote != "" {
		t.Errorf("got %q in the page, want nothing that is fetched or run", remote)
	}
}

// visible is what a reader sees of a page.
func visible(page string) string {
	_, body, _ := strings.Cut(page, "<body")
	_, body, _ = strings.Cut(body, ">")
	return html.UnescapeString(regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, ""))
}

// words are those of s, whatever stands between them, without the line that
// begins a signature.
func words(s string) string {
	return strings.Join(strings.Fields(strings.Replace(s, "\n-- \n", "\n", 1)), " ")
}

// golden compares got with the file of testdata, or writes it there.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", strings.NewReplacer(",", "", " ", "_").Replace(name))
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, string(want)); diff != "" {
		t.Errorf("%s (-got +want):\n%s", file, diff)
	}
}

func TestEachMessageHasAnIDOfItsOwn(t *testing.T) {
	t.Parallel()
	db := modelstest.New(t, models.SQLite)
	server := serveSMTP(t, plain)
	o, _ := outboxTo(t, server, db)
	for range 5 {
		post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
	}
	if err := round(t, o); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, m := range server.messages() {
		seen[parse(t, m.raw).MessageID] = true
		if m.dialogue != 1 {
			t.Errorf("got a message over connection %d, want all over the first", m.dialogue)
		}
	}
	if len(seen) != 5 {
		t.Errorf("got %d message ids, want 5", len(seen))
	}
}

func TestWithoutAServerMailIsWrittenToTheLog(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		var logs logs
		cfg := config("", &logs)
		cfg.From = ""
		signUp(t, db, address)
		if err := db.RequestReset(t.Context(), address, models.By{}); err != nil {
			t.Fatal(err)
		}
		if err := round(t, newOutbox(t, cfg, db)); err != nil {
			t.Fatal(err)
		}
		lines := logs.all()
		if len(lines) != 1 || !strings.HasPrefix(lines[0], slog.LevelInfo.String()+" mail, not sent because no mail server is set to="+address+" subject=Choose a new password for Parley text=Hello,\n") ||
			!strings.Contains(lines[0], "\nhttps://chat.example.org/reset-password?token=the-secret\n") {
			t.Errorf("got the log %q, want the message with its link", lines)
		}
		if left := outbox(t, db); len(left) > 0 {
			t.Errorf("got %v left in the outbox, want nothing", left)
		}
	})
}
