package mail_test

import (
	netmail "net/mail"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/mail"
)

// FuzzRecipient: a recipient that passes is one address in the header and one
// argument of RCPT, whatever the database holds.
func FuzzRecipient(f *testing.F) {
	for _, s := range []string{
		"you@example.org", "o'neil+tag@example.org", "You <you@example.org>", "a@b, c@d", `"a b"@c`, "a@[127.0.0.1]",
		"you@example.org\r\nBcc: all@example.org", "you@example.org> NOTIFY=NEVER", "=?utf-8?q?a=40b?=@c", "a@b (c)", "@a:b@c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if mail.CheckRecipient(s) != nil {
			return
		}
		if strings.ContainsAny(s, " \t\r\n<>,;") {
			t.Errorf("%q passes", s)
		}
		raw, err := mail.Compose(s)
		if err != nil {
			t.Fatal(err)
		}
		m, err := netmail.ReadMessage(strings.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		to, err := m.Header.AddressList("To")
		if diff := cmp.Diff(to, []*netmail.Address{{Address: s}}); diff != "" || err != nil {
			t.Errorf("%q: %v, To (-got +want):\n%s", s, err, diff)
		}
		if len(m.Header) != len(headers(""))+2 {
			t.Errorf("%q: got the headers %v", s, m.Header)
		}
	})
}

// FuzzSMTPURL: whatever is set, the error does not repeat the password.
func FuzzSMTPURL(f *testing.F) {
	for _, s := range []string{
		"smtp://me:%s@host:587", "smtps://me:%s@host", "smtp://me:%s@", "://me:%s@host", "smtp://me:%s@host:port", "smtp://me:%s@host/%zz",
		"%s", "smtp://[::1%%25eth0]?%s", "smtp://me:%s%%@host",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, form string) {
		const password = "correct-horse-battery"
		var logs logs
		cfg := config(strings.ReplaceAll(form, "%s", password), &logs)
		_, err := mail.New(cfg, nil)
		if err != nil && strings.Contains(err.Error(), password) {
			t.Errorf("%q: %v", cfg.SMTPURL, err)
		}
		if u, parseErr := url.Parse(cfg.SMTPURL); err == nil && cfg.SMTPURL != "" && (parseErr != nil || u.Host == "") {
			t.Errorf("%q passes", cfg.SMTPURL)
		}
	})
}
