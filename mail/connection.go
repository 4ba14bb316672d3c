package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// A connection is an outlet over SMTP (RFC 5321).
type connection struct {
	conn    net.Conn
	client  *smtp.Client
	timeout time.Duration // for each message
}

// send hands one message over, within the timeout whatever the server does.
// After nil the server has it, and after a *fault it does not, unless what is
// missing is its answer to the last byte. The connection is good for another
// message, unless the fault says that it is broken.
func (c *connection) send(m message) error {
	err := c.conn.SetDeadline(time.Now().Add(c.timeout))
	if err != nil {
		return explain("connection", err)
	}
	f := c.transact(m)
	if f == nil {
		return nil
	}
	if !f.broken && c.client.Reset() != nil {
		f.broken = true
	}
	return f
}

// transact is one mail transaction.
func (c *connection) transact(m message) *fault {
	if err := c.client.Mail("<" + m.from.Address + ">"); err != nil {
		return explain("MAIL", err)
	}
	if err := c.client.Rcpt("<" + m.to + ">"); err != nil {
		return explain("RCPT", err).aboutMessage()
	}
	body, err := c.client.Data()
	if err != nil {
		return explain("DATA", err)
	}
	if _, err := m.mime().WriteTo(body); err != nil {
		return explain("message", err)
	}
	if err := body.Close(); err != nil {
		return explain("message", err).aboutMessage()
	}
	return nil
}

// close takes leave of the server, which need not answer.
func (c *connection) close() {
	if c.conn.SetDeadline(time.Now().Add(time.Second)) == nil {
		c.client.Quit() //nolint:errcheck // the connection ends either way
	}
	c.conn.Close() //nolint:errcheck // what was sent has been answered
}

// A fault is why a message could not be sent, or the server not be reached, in
// words for a log. They name neither the reader nor what is written: servers
// like to quote both, so nothing of what they say gets in but its numbers.
type fault struct {
	step  string // what was being done
	cause string // the numbers of the server's answer, or what happened instead of one
	// refused says that the server will never take this message for this reader.
	refused bool
	// broken says that nothing more can be sent over this connection.
	broken bool
	code   int // of the answer; 0 is none
}

func (f *fault) Error() string { return f.step + ": " + f.cause }

// aboutMessage says that the answer, if there was one, was about this message
// and not about who sends it, or how.
func (f *fault) aboutMessage() *fault {
	f.refused = f.code/100 == 5
	return f
}

// enhancedStatus is the beginning of an answer's text by RFC 2034.
var enhancedStatus = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}\b`)

// explain makes a fault of what package smtp or the network says.
func explain(step string, err error) *fault {
	f := &fault{step: step, broken: true}
	var (
		answer      *textproto.Error
		timeout     net.Error
		certificate *tls.CertificateVerificationError
		noTLS       tls.RecordHeaderError
		network     *net.OpError
	)
	switch {
	case errors.As(err, &answer):
		f.code = answer.Code
		f.cause = strings.TrimSpace(fmt.Sprintf("%03d %s", answer.Code, enhancedStatus.FindString(answer.Msg)))
		f.broken = answer.Code == 421 // RFC 5321 §3.8: the server is closing
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		f.cause = "no answer in time"
	case errors.As(err, &certificate):
		f.cause = certificate.Error()
	case errors.As(err, &noTLS):
		f.cause = noTLS.Error()
	case errors.As(err, &network):
		f.cause = network.Error()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		f.cause = "the server has hung up"
	default:
		f.cause = "no answer that makes sense"
	}
	return f
}
