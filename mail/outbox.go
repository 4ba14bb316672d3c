package mail

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	netmail "net/mail"
	"net/url"
	"strings"
	"time"

	"parley/metrics"
	"parley/models"
)

const (
	// lease is how long a mail that was taken from the outbox is kept from other
	// replicas: longer than a connection, a delivery and the statements about
	// them may take, with time to spare for a database that is away for a moment.
	lease = time.Minute
	// resetLifetime is how long a reset link works.
	resetLifetime = time.Hour
	// keepTrying is how old a mail gets before it is given up.
	keepTrying = 24 * time.Hour
	// perConnection is how many mails go over one connection. Servers hang up
	// after some number of them.
	perConnection = 10
)

// Config is what an outbox is told.
type Config struct {
	// SMTPURL names the mail server. If it is empty, mail is written to Log, links
	// included, which is for development alone.
	//
	//	smtp://user:password@host:587   STARTTLS, without which nothing is sent; a server on this
	//	                                machine (localhost, 127.0.0.1, ::1) may do without
	//	smtps://user:password@host:465  TLS from the first byte
	//
	// The ports are the defaults, and a server may ask for no password. What is
	// special in the user and the password is percent-encoded.
	SMTPURL string
	// From is who the mail is from: an address, or Name <address>. Without SMTPURL
	// it may be empty.
	From string
	// PublicURL is where users reach the service, for links. It has no query.
	PublicURL string
	// RootCAs vouch for the server's certificate; nil are the system's.
	RootCAs *x509.CertPool
	// NewToken returns the secret of a reset link, in characters that a URL takes,
	// and what is stored of it.
	NewToken func() (token, hash string)
	Metrics  *metrics.Mails // what is counted [nobody reads it]
	Log      *slog.Logger
}

// Outbox delivers the mail that waits in a database. Any number of them, in any
// number of processes, share the work.
type Outbox struct {
	db       *models.DB
	log      *slog.Logger
	from     netmail.Address
	public   *url.URL
	newToken func() (token, hash string)
	metrics  *metrics.Mails
	server   *server // nil: mail goes to the log

	poll       time.Duration // between two looks into an empty outbox
	firstRetry time.Duration
}

// An outlet takes messages, one at a time.
type outlet interface {
	// send hands a message over. What it says of a failure may be logged.
	send(message) error
	close()
}

// New makes an outbox of db; Run works it off. It connects to nothing. The error
// says what is wrong with cfg, and quotes no password.
func New(cfg Config, db *models.DB) (*Outbox, error) {
	o := &Outbox{
		db:         db,
		log:        cfg.Log,
		newToken:   cfg.NewToken,
		metrics:    cmp.Or(cfg.Metrics, metrics.NewMails(nil)),
		poll:       time.Second,
		firstRetry: 5 * time.Second,
	}
	var err error
	if o.public, err = url.Parse(strings.TrimRight(cfg.PublicURL, "/")); err != nil || o.public.Host == "" {
		return nil, errors.New("mail: the public URL is not one")
	}
	if cfg.SMTPURL == "" {
		return o, nil
	}
	from, err := netmail.ParseAddress(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("mail: the sender %q is not an address; write one such as Parley <parley@example.org>", cfg.From)
	}
	o.from = *from
	if o.server, err = parseServer(cfg.SMTPURL); err != nil {
		return nil, fmt.Errorf("mail: the SMTP URL %w", err)
	}
	o.server.roots = cfg.RootCAs
	o.server.helo = from.Address[strings.LastIndexByte(from.Address, '@')+1:]
	return o, nil
}

// Run delivers what is due until ctx ends. A mail that is on its way to the
// server then is finished, which takes a few seconds at the most.
func (o *Outbox) Run(ctx context.Context) {
	const slowest = 30 * time.Second
	for pause := time.Duration(0); wait(ctx, pause); {
		more, err := o.round(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			// Trying hard helps neither a server nor a database that is down.
			pause = min(2*max(pause, o.poll), slowest)
			o.log.Warn("mail waits, trying again", "err", err)
		case more:
			pause = 0
		default:
			pause = o.poll
		}
	}
}

// open makes ready to send.
func (o *Outbox) open(ctx context.Context) (outlet, error) {
	if o.server == nil {
		return written{o.log}, nil
	}
	return o.server.open(ctx)
}

// round sends what is due over one connection, and tells if there may be more.
// The error is about the mail server or the database, not about a mail.
func (o *Outbox) round(ctx context.Context) (more bool, err error) {
	var out outlet
	defer func() {
		if out != nil {
			out.close()
		}
	}()
	for range perConnection {
		// One at a time: what this replica cannot send is not held back from others.
		due, err := o.db.ClaimMails(ctx, 1, lease)
		if err != nil || len(due) == 0 {
			return false, err
		}
		if out == nil {
			if out, err = o.open(ctx); err != nil {
				return false, errors.Join(err, o.settle(ctx, due[0], err))
			}
		}
		err = o.send(ctx, out, due[0])
		if settled := o.settle(ctx, due[0], err); settled != nil {
			return false, settled
		}
		if f, ok := errors.AsType[*fault](err); ok && f.broken {
			return false, err
		}
	}
	return true, nil
}

// send writes a mail and hands it over. The secret of a reset link is made
// here, with a connection open, so that a server that is down ends no link that
// came before. models.ErrNotFound says that nobody is left to read the mail.
func (o *Outbox) send(ctx context.Context, out outlet, m models.Mail) error {
	if err := checkRecipient(m.Recipient); err != nil {
		return err
	}
	var link string
	if m.Kind == models.MailResetPassword {
		var err error
		if link, err = o.resetLink(ctx, m); err != nil {
			return err
		}
	}
	l, err := write(m, o.public, link)
	if err != nil {
		return err
	}
	return out.send(message{letter: l, from: o.from, to: m.Recipient})
}

// resetLink makes a link that resets the password of m's user, and ends those
// before it. The account may have got another address since m was posted, and
// whoever reads mail to the former one must not get in: a change before SetReset
// is seen here, and one after it ends the link.
func (o *Outbox) resetLink(ctx context.Context, m models.Mail) (string, error) {
	token, hash := o.newToken()
	if err := o.db.SetReset(ctx, m.UserID, hash, time.Now().Add(resetLifetime)); err != nil {
		return "", err
	}
	user, err := o.db.User(ctx, m.UserID)
	if err == nil && user.Email != m.Recipient {
		err = models.ErrNotFound
	}
	return o.public.String() + "/reset-password?token=" + url.QueryEscape(token), err
}

// settle tells the database what became of a mail, even if ctx has ended.
func (o *Outbox) settle(ctx context.Context, m models.Mail, err error) error {
	lasting := context.WithoutCancel(ctx)
	f, _ := errors.AsType[*fault](err)
	switch {
	case err == nil:
		o.metrics.Sent()
		return o.insistSent(ctx, m)
	case errors.Is(err, models.ErrNotFound):
		o.metrics.Dropped()
		return o.db.DropMail(lasting, m.ID)
	case f != nil && f.refused:
		o.metrics.Dropped()
		o.log.Warn("mail is dropped, the server will never take it", "id", m.ID, "kind", m.Kind, "err", err)
		return o.db.DropMail(lasting, m.ID)
	case ctx.Err() != nil:
		return o.db.MailFailed(lasting, m.ID, 0, "the replica has ended")
	case time.Since(m.CreatedAt) > keepTrying:
		o.metrics.Dropped()
		o.log.Warn("mail is given up, it could not be sent for a day", "id", m.ID, "kind", m.Kind, "err", err)
		return o.db.DropMail(lasting, m.ID)
	}
	o.metrics.PutOff()
	o.log.Info("mail is put off", "id", m.ID, "kind", m.Kind, "attempts", m.Attempts, "err", err)
	return o.db.MailFailed(lasting, m.ID, o.retryIn(m.Attempts), err.Error())
}

// insistSent tells the database that a mail was sent, until it has heard. Until
// then the mail may be sent again.
func (o *Outbox) insistSent(ctx context.Context, m models.Mail) error {
	for {
		err := o.db.MailSent(context.WithoutCancel(ctx), m.ID)
		if err == nil || !wait(ctx, o.poll) {
			return err
		}
	}
}

// retryIn is how long a mail waits after so many attempts: twice as long each
// time, and up to a quarter more, so that what failed together does not come back
// together.
func (o *Outbox) retryIn(attempts int) time.Duration {
	const longest = 15 * time.Minute
	d := min(o.firstRetry<<min(attempts-1, 10), longest)
	return d + rand.N(d/4)
}

// wait reports whether d has passed before ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
