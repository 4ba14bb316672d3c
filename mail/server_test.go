package mail_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"parley/mail"
	"parley/models"
	"parley/models/modelstest"
)

// refusal is an answer of the server by which it does not do what it is asked.
// NoEnhancedCode leaves the status out.
func refusal(code int, status smtp.EnhancedCode, text string) error {
	return &smtp.SMTPError{Code: code, EnhancedCode: status, Message: text}
}

func TestMailLeavesBySTARTTLSByTLSOrOnThisMachine(t *testing.T) {
	t.Parallel()
	type way struct {
		user string
		tls  bool
		helo string
	}
	const password = "p@ss:/?#wörd"
	const encoded = "p%40ss%3A%2F%3F%23w%C3%B6rd"
	for name, tt := range map[string]struct {
		transport  transport
		mechanisms []string
		url        string // %s is the server's address
		trusted    bool   // the certificate of the server is one of the roots
		want       way
	}{
		"STARTTLS, the port left out": {
			transport: startTLS, url: "smtp://" + host, trusted: true,
			want: way{tls: true},
		},
		"STARTTLS with a password": {
			transport: startTLS, mechanisms: []string{"PLAIN"}, url: "smtp://me%40example.com:" + encoded + "@" + host + ":587", trusted: true,
			want: way{tls: true, user: "me@example.com"},
		},
		"TLS from the first byte": {
			transport: wrapped, url: "smtps://" + host, trusted: true,
			want: way{tls: true},
		},
		"TLS from the first byte with a password": {
			transport: wrapped, mechanisms: []string{"LOGIN"}, url: "smtps://me%40example.com:" + encoded + "@" + host + ":465", trusted: true,
			want: way{tls: true, user: "me@example.com"},
		},
		"nothing of the kind on this machine": {
			transport: plain, url: "smtp://%s",
			want: way{},
		},
		"a password on this machine": {
			transport: plain, mechanisms: []string{"CRAM-MD5", "LOGIN", "PLAIN"}, url: "smtp://me%%40example.com:" + strings.ReplaceAll(encoded, "%", "%%") + "@%s",
			want: way{user: "me@example.com"},
		},
		"STARTTLS on this machine, by a certificate that nobody vouches for": {
			transport: startTLS, mechanisms: []string{"PLAIN"}, url: "smtp://me%%40example.com:" + strings.ReplaceAll(encoded, "%", "%%") + "@%s",
			want: way{tls: true, user: "me@example.com"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			server := &mailServer{mechanisms: tt.mechanisms, user: "me@example.com", password: password}
			server.listen(t, tt.transport)
			var logs logs
			cfg := config(tt.url, &logs)
			if strings.Contains(tt.url, "%s") {
				cfg.SMTPURL = fmt.Sprintf(tt.url, server.address)
			}
			if tt.trusted {
				cfg.RootCAs = server.roots
			}
			o := newOutbox(t, cfg, db)
			o.DialTo(server.address)
			post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
			if err := round(t, o); err != nil {
				t.Fatal(err)
			}
			var got []way
			for _, m := range server.messages() {
				got = append(got, way{user: m.user, tls: m.tls, helo: m.helo})
			}
			tt.want.helo = "example.com"
			if diff := cmp.Diff(got, []way{tt.want}, cmp.AllowUnexported(way{})); diff != "" {
				t.Errorf("how it came (-got +want):\n%s", diff)
			}
		})
	}
}

func TestNothingIsSaidToAServerThatIsNotTheOneThatWasNamed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		transport transport
		url       string
		roots     func(*mailServer) *x509.CertPool
		want      string
	}{
		"no STARTTLS": {
			transport: plain, url: "smtp://me:s3cret@" + host,
			want: "STARTTLS: the server does not offer it, and only one on this machine may do without",
		},
		"STARTTLS with a certificate that nobody vouches for": {
			transport: startTLS, url: "smtp://me:s3cret@" + host,
			roots: func(*mailServer) *x509.CertPool { return x509.NewCertPool() },
			want:  "STARTTLS: tls: failed to verify certificate: x509: certificate signed by unknown authority",
		},
		"STARTTLS with a certificate of another one": {
			transport: startTLS, url: "smtp://me:s3cret@other.example.test",
			want: "STARTTLS: tls: failed to verify certificate: x509: certificate is valid for smtp.example.test, not other.example.test",
		},
		"TLS with a certificate that nobody vouches for": {
			transport: wrapped, url: "smtps://me:s3cret@" + host,
			roots: func(*mailServer) *x509.CertPool { return x509.NewCertPool() },
			want:  "TLS: tls: failed to verify certificate: x509: certificate signed by unknown authority",
		},
		"TLS with a certificate of another one, on this machine": {
			transport: wrapped, url: "smtps://me:s3cret@127.0.0.1",
			want: "TLS: tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
		},
		"no TLS where TLS is expected": {
			transport: plain, url: "smtps://me:s3cret@" + host,
			want: "TLS: tls: first record does not look like a TLS handshake",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			server := &mailServer{mechanisms: []string{"PLAIN"}, user: "me", password: "s3cret"}
			server.listen(t, tt.transport)
			var logs logs
			cfg := config(tt.url, &logs)
			cfg.RootCAs = server.roots
			if tt.roots != nil {
				cfg.RootCAs = tt.roots(server)
			}
			o := newOutbox(t, cfg, db)
			o.DialTo(server.address)
			post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
			if err := round(t, o); err == nil || err.Error() != tt.want {
				t.Errorf("got the error %v, want %s", err, tt.want)
			}
			if got := server.messages(); len(got) > 0 || len(server.presented()) > 0 {
				t.Errorf("got the messages %v and the credentials %q, want none", got, server.presented())
			}
			want := []waiting{{Recipient: address, Attempts: 1, LastError: tt.want}}
			if diff := cmp.Diff(outbox(t, db), want); diff != "" {
				t.Errorf("outbox (-got +want):\n%s", diff)
			}
		})
	}
}

func TestAWrongPasswordKeepsTheMailWaiting(t *testing.T) {
	t.Parallel()
	for _, mechanism := range []string{"PLAIN", "LOGIN"} {
		t.Run(mechanism, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			server := &mailServer{mechanisms: []string{mechanism}, user: "me", password: "other"}
			server.listen(t, plain)
			var logs logs
			o := newOutbox(t, config("smtp://me:s3cret@"+server.address, &logs), db)
			post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
			const want = "AUTH: 535 5.7.8"
			if err := round(t, o); err == nil || err.Error() != want {
				t.Errorf("got the error %v, want %s", err, want)
			}
			if got := server.presented(); !slices.Equal(got, []string{"me:s3cret"}) {
				t.Errorf("got the credentials %q, want them once", got)
			}
			if logs.has("s3cret") {
				t.Errorf("got the log %q, want no password in it", logs.all())
			}
			if diff := cmp.Diff(outbox(t, db), []waiting{{address, 1, want}}); diff != "" {
				t.Errorf("outbox (-got +want):\n%s", diff)
			}
		})
	}
}

func TestASlowServerIsCut(t *testing.T) {
	t.Parallel()
	silent := func(ctx context.Context, _ net.Conn) { <-ctx.Done() }
	// drips sends a byte of an answer that has no end now and then.
	drips := func(ctx context.Context, conn net.Conn, answer string) {
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := conn.Write([]byte{answer[i%len(answer)]}); err != nil {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	// until answers as a server should, up to a command, and then is silent.
	until := func(command string) func(context.Context, net.Conn) {
		return func(ctx context.Context, conn net.Conn) {
			fmt.Fprint(conn, "220 here\r\n")
			var message bool
			converse(conn, func(line string) string {
				switch {
				case strings.HasPrefix(line, command):
					<-ctx.Done()
				case message:
					return noAnswer
				case line == "DATA":
					message = true
					return "354 go on"
				}
				return "250 fine"
			})
		}
	}
	for name, tt := range map[string]struct {
		handle func(context.Context, net.Conn)
		want   string
	}{
		"it does not greet":            {silent, "greeting: no answer in time"},
		"its greeting has no end":      {func(ctx context.Context, c net.Conn) { drips(ctx, c, "2") }, "greeting: no answer that makes sense"},
		"its greeting is a long one":   {func(ctx context.Context, c net.Conn) { drips(ctx, c, "220-and\r\n") }, "greeting: no answer in time"},
		"it does not answer to EHLO":   {until("EHLO"), "EHLO: no answer in time"},
		"it does not answer to MAIL":   {until("MAIL"), "MAIL: no answer in time"},
		"it does not answer to RCPT":   {until("RCPT"), "RCPT: no answer in time"},
		"it does not answer to DATA":   {until("DATA"), "DATA: no answer in time"},
		"it does not take the message": {until("."), "message: no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			var logs logs
			o := newOutbox(t, config("smtp://"+script(t, tt.handle), &logs), db)
			o.WaitFor(2 * time.Second)
			post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
			if err := round(t, o); err == nil || err.Error() != tt.want {
				t.Errorf("got the error %v, want %s", err, tt.want)
			}
			if diff := cmp.Diff(outbox(t, db), []waiting{{address, 1, tt.want}}); diff != "" {
				t.Errorf("outbox (-got +want):\n%s", diff)
			}
		})
	}
}

func TestAServerThatMakesNoSense(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		greeting, answer string // hangs up where it has none
		want             string
	}{
		"it hangs up at once":              {"", "", "greeting: the server has hung up"},
		"it greets in another language":    {"HTTP/1.1 400 " + address, "", "greeting: no answer that makes sense"},
		"it hangs up when it is spoken to": {"220 here", "", "EHLO: the server has hung up"},
		"it quotes without a number":       {"220 here", "who is " + address, "EHLO: no answer that makes sense"},
		"it says no and quotes":            {"220 here", "550 who is " + address, "EHLO: 550"},
		"it says no, with a status":        {"220 here", "550-5.7.1 who is " + address + "\r\n550 5.7.1 " + address, "EHLO: 550 5.7.1"},
		"it goes on when it should end":    {"354 go on", "", "greeting: 354"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := modelstest.New(t, models.SQLite)
			var logs logs
			server := script(t, func(_ context.Context, conn net.Conn) {
				if tt.greeting == "" {
					return
				}
				fmt.Fprint(conn, tt.greeting+"\r\n")
				converse(conn, func(string) string { return tt.answer })
			})
			o := newOutbox(t, config("smtp://"+server, &logs), db)
			post(t, db, models.Mail{Kind: models.MailPasswordChanged, Recipient: address})
			if err := round(t, o); err == nil || err.Error() != tt.want {
				t.Errorf("got the error %v, want %s", err, tt.want)
			}
			if diff := cmp.Diff(outbox(t, db), []waiting{{address, 1, tt.want}}); diff != "" {
				t.Errorf("outbox (-got +want):\n%s", diff)
			}
			if logs.has(address) {
				t.Errorf("got the log %q, want no address in it", logs.all())
			}
		})
	}
}

func TestSettingsThatAreNone(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*mail.Config)
		want   string
	}{
		"no URL":                {func(c *mail.Config) { c.SMTPURL = "smtp://me:s3cret@host:port" }, "mail: the SMTP URL is not a URL; percent-encode what is special in the user and the password"},
		"another scheme":        {func(c *mail.Config) { c.SMTPURL = "http://me:s3cret@host" }, "mail: the SMTP URL names no mail server; write smtp://user:password@host:587, or smtps://user:password@host:465"},
		"no host":               {func(c *mail.Config) { c.SMTPURL = "smtp://me:s3cret@" }, "mail: the SMTP URL names no mail server; write smtp://user:password@host:587, or smtps://user:password@host:465"},
		"something behind it":   {func(c *mail.Config) { c.SMTPURL = "smtp://me:s3cret@host/tls" }, "mail: the SMTP URL names no mail server; write smtp://user:password@host:587, or smtps://user:password@host:465"},
		"a query":               {func(c *mail.Config) { c.SMTPURL = "smtp://me:s3cret@host?tls=no" }, "mail: the SMTP URL names no mail server; write smtp://user:password@host:587, or smtps://user:password@host:465"},
		"no sender":             {func(c *mail.Config) { c.From = "" }, `mail: the sender "" is not an address; write one such as Parley <parley@example.org>`},
		"a sender that is none": {func(c *mail.Config) { c.From = "Parley" }, `mail: the sender "Parley" is not an address; write one such as Parley <parley@example.org>`},
		"no public URL":         {func(c *mail.Config) { c.PublicURL = "" }, "mail: the public URL is not one"},
		"a public path":         {func(c *mail.Config) { c.PublicURL = "/here" }, "mail: the public URL is not one"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var logs logs
			cfg := config("smtp://me:s3cret@host", &logs)
			tt.change(&cfg)
			if _, err := mail.New(cfg, nil); err == nil || err.Error() != tt.want {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}
