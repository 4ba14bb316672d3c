package mail_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"go.uber.org/goleak"

	"parley/mail"
	"parley/models"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	// patience is how long a test waits for what must happen.
	patience = 20 * time.Second
	// host is the name of the test's mail server: one of another machine.
	host = "smtp.example.test"
)

// A received is a message that the test's mail server has taken.
type received struct {
	from     string
	to       []string
	user     string // who signed in
	tls      bool
	helo     string
	dialogue int // over which connection it came, counted from 1
	raw      string
}

// A mailServer is a real SMTP server that answers as a test wants.
type mailServer struct {
	address string
	roots   *x509.CertPool // vouch for host

	// What it answers, if they are set: to a connection, to the commands, and to
	// the whole message.
	greets     func(c *smtp.Conn) error
	from, rcpt func(address string) error
	takes      func(received) error
	mechanisms []string
	user       string
	password   string

	mu          sync.Mutex
	got         []received
	credentials []string // user:password
	connections int
	arrivals    chan struct{} // one for each of got
}

// How a mailServer is reached.
type transport int

const (
	plain transport = iota
	startTLS
	wrapped
)

// listen serves SMTP until the test ends.
func (s *mailServer) listen(t *testing.T, how transport) {
	t.Helper()
	certificate, roots := selfSigned(t)
	s.roots = roots
	s.arrivals = make(chan struct{}, 1000)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listener.Addr().String()
	server := smtp.NewServer(smtp.BackendFunc(s.session))
	server.Domain = host
	server.AllowInsecureAuth = true
	server.ErrorLog = log.New(io.Discard, "", 0)
	config := &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}
	switch how {
	case startTLS:
		server.TLSConfig = config
	case wrapped:
		listener = tls.NewListener(listener, config)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Close()
		if err := <-served; err != nil {
			t.Errorf("the mail server: %v", err)
		}
	})
}

// serveSMTP starts a mail server that takes everything.
func serveSMTP(t *testing.T, how transport) *mailServer {
	t.Helper()
	s := &mailServer{}
	s.listen(t, how)
	return s
}

func (s *mailServer) session(c *smtp.Conn) (smtp.Session, error) {
	s.mu.Lock()
	s.connections++
	number := s.connections
	s.mu.Unlock()
	if s.greets != nil {
		if err := s.greets(c); err != nil {
			return nil, err
		}
	}
	return &session{server: s, conn: c, message: received{dialogue: number}}, nil
}

// messages are what the server has taken so far.
func (s *mailServer) messages() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.got)
}

// presented are the credentials that came so far.
func (s *mailServer) presented() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.credentials)
}

// A session is one connection to a mailServer.
type session struct {
	server  *mailServer
	conn    *smtp.Conn
	message received
}

func (s *session) Reset()        { s.message.from, s.message.to = "", nil }
func (s *session) Logout() error { return nil }

func (s *session) AuthMechanisms() []string { return s.server.mechanisms }

func (s *session) Auth(mechanism string) (sasl.Server, error) {
	check := func(user, password string) error {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		s.server.credentials = append(s.server.credentials, user+":"+password)
		if user != s.server.user || password != s.server.password {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: user + " with " + password + "? No."}
		}
		s.message.user = user
		return nil
	}
	if mechanism == sasl.Login {
		return &login{check: check}, nil
	}
	return sasl.NewPlainServer(func(_, user, password string) error { return check(user, password) }), nil
}

// login is the server's side of AUTH LOGIN (draft-murchison-sasl-login).
type login struct {
	check   func(user, password string) error
	answers []string
}

func (l *login) Next(answer []byte) (challenge []byte, done bool, err error) {
	if answer != nil {
		l.answers = append(l.answers, string(answer))
	}
	switch len(l.answers) {
	case 0:
		return []byte("User Name"), false, nil
	case 1:
		return []byte("Password"), false, nil
	}
	return nil, true, l.check(l.answers[0], l.answers[1])
}

func (s *session) Mail(from string, _ *smtp.MailOptions) error {
	s.message.from = from
	if s.server.from != nil {
		return s.server.from(from)
	}
	return nil
}

func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.message.to = append(s.message.to, to)
	if s.server.rcpt != nil {
		return s.server.rcpt(to)
	}
	return nil
}

func (s *session) Data(r io.Reader) error {
	raw, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	m := s.message
	_, m.tls = s.conn.TLSConnectionState()
	m.helo, m.raw = s.conn.Hostname(), string(raw)
	if s.server.takes != nil {
		if err := s.server.takes(m); err != nil {
			return err
		}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.got = append(s.server.got, m)
	s.server.arrivals <- struct{}{}
	return nil
}

// selfSigned makes a certificate of host, and what trusts it.
func selfSigned(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{host},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, roots
}

// script accepts connections and does with each what handle says, which gets a
// context that ends with the test. It returns the address.
func script(t *testing.T, handle func(ctx context.Context, conn net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				defer conn.Close()
				handle(ctx, conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		running.Wait()
	})
	return listener.Addr().String()
}

// address is where the mails of these tests go.
const address = "you@example.org"

// noon is when the mails were posted whose words are compared.
var noon = time.Date(2024, 11, 21, 12, 0, 0, 0, time.UTC)

// config is that of an outbox whose mail goes to url.
func config(url string, logs *logs) mail.Config {
	return mail.Config{
		SMTPURL:   url,
		From:      "Parley <parley@example.com>",
		PublicURL: "https://chat.example.org",
		NewToken:  func() (token, hash string) { return "the-secret", "its-hash" },
		Log:       slog.New(logs),
	}
}

// newOutbox makes an outbox.
func newOutbox(t *testing.T, cfg mail.Config, db *models.DB) *mail.Outbox {
	t.Helper()
	o, err := mail.New(cfg, db)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// outboxTo makes an outbox that sends to s without TLS, as to a server on the
// same machine.
func outboxTo(t *testing.T, s *mailServer, db *models.DB) (*mail.Outbox, *logs) {
	t.Helper()
	var logs logs
	return newOutbox(t, config("smtp://"+s.address, &logs), db), &logs
}

// round lets o send once what is due.
func round(t *testing.T, o *mail.Outbox) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := o.Round(ctx)
	if ctx.Err() != nil {
		t.Fatal("the round takes for ever")
	}
	return err
}

// post puts a mail into the outbox, as it stands there after a time.
func post(t *testing.T, db *models.DB, m models.Mail) {
	t.Helper()
	if m.CreatedAt.IsZero() {
		m.CreatedAt = time.Now()
	}
	data, err := json.Marshal(m.Data)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Bun().NewRaw(`INSERT INTO mails (kind, user_id, recipient, data, attempts, next_at, created_at) VALUES (?, ?, ?, ?, ?, ?, ?)`,
		m.Kind, m.UserID, m.Recipient, string(data), m.Attempts, m.CreatedAt.UTC(), m.CreatedAt.UTC()).Exec(t.Context())
	if err != nil {
		t.Fatal(err)
	}
}

// A waiting is what the database holds of a mail that was not sent.
type waiting struct {
	Recipient string
	Attempts  int
	LastError string
}

// outbox lists the mails that wait.
func outbox(t *testing.T, db *models.DB) []waiting {
	t.Helper()
	var all []waiting
	err := db.Bun().NewRaw(`SELECT recipient, attempts, COALESCE(last_error, '') AS last_error FROM mails ORDER BY id`).Scan(t.Context(), &all)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// makeDue lets the time pass after which mails are tried again.
func makeDue(t *testing.T, db *models.DB) {
	t.Helper()
	if _, err := db.Bun().NewRaw(`UPDATE mails SET next_at = created_at`).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// logs keeps what is logged, as lines "LEVEL message key=value …".
type logs struct {
	mu    sync.Mutex
	lines []string
}

func (*logs) Enabled(context.Context, slog.Level) bool { return true }
func (l *logs) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l *logs) WithGroup(string) slog.Handler          { return l }

func (l *logs) Handle(_ context.Context, r slog.Record) error {
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// all is what was logged, a line each.
func (l *logs) all() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines)
}

// has reports whether a word was logged anywhere.
func (l *logs) has(word string) bool { return strings.Contains(strings.Join(l.all(), "\n"), word) }

// noAnswer is what is said to the lines of a message.
const noAnswer = "-"

// converse answers each line of conn until the answer is empty.
func converse(conn net.Conn, answer func(line string) string) {
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		text := answer(lines.Text())
		switch text {
		case "":
			return
		case noAnswer:
			continue
		}
		if _, err := io.WriteString(conn, text+"\r\n"); err != nil {
			return
		}
	}
}

// run lets o work, in a hurry, until the test ends, or until it is told to stop; stop waits
// for its end.
func run(t *testing.T, o *mail.Outbox) (stop func()) {
	t.Helper()
	o.Hurry()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		o.Run(ctx)
	}()
	stop = func() {
		cancel()
		select {
		case <-ended:
		case <-time.After(patience):
			t.Error("the outbox does not end")
		}
	}
	t.Cleanup(stop)
	return stop
}

// await waits until the server has taken so many messages.
func (s *mailServer) await(t *testing.T, messages int) {
	t.Helper()
	for range messages {
		select {
		case <-s.arrivals:
		case <-time.After(patience):
			t.Fatalf("got %d messages, want %d", len(s.messages()), messages)
		}
	}
}
