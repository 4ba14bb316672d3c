package mail

import (
	"context"
	"net"
	netmail "net/mail"
	"strings"
	"time"

	"parley/models"
)

// Round sends what is due, as Run does again and again.
func (o *Outbox) Round(ctx context.Context) (more bool, err error) { return o.round(ctx) }

// DialTo connects to address whatever the SMTP URL says, so that the server of a
// test can have a name.
func (o *Outbox) DialTo(address string) {
	o.server.dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
}

// WaitFor is how long a server may take.
func (o *Outbox) WaitFor(d time.Duration) { o.server.timeout = d }

// Hurry makes it look into the outbox, and try again, without delay.
func (o *Outbox) Hurry() {
	o.poll = 5 * time.Millisecond
	o.firstRetry = 5 * time.Millisecond
}

// CheckRecipient is checkRecipient.
func CheckRecipient(s string) error { return checkRecipient(s) }

// Deliver sends a mail that was claimed, and tells the database what became of it.
func (o *Outbox) Deliver(ctx context.Context, m models.Mail) error {
	out, err := o.open(ctx)
	if err != nil {
		return err
	}
	defer out.close()
	return o.settle(ctx, m, o.send(ctx, out, m))
}

// RetryIn is retryIn.
func (o *Outbox) RetryIn(attempts int) time.Duration { return o.retryIn(attempts) }

// Compose is a message to a recipient that CheckRecipient has passed.
func Compose(to string) (string, error) {
	var raw strings.Builder
	m := message{letter: letter{subject: "s", text: "t", html: "h"}, from: netmail.Address{Address: "parley@example.com"}, to: to}
	_, err := m.mime().WriteTo(&raw)
	return raw.String(), err
}
