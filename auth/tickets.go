package auth

import (
	"crypto/rand"
	"errors"
	"time"
)

// ticketTTL is how long a ticket is good for. A browser's EventSource comes
// back with the URL that it began with, as often as its connection breaks: a
// ticket that could be used once, or for seconds, would end a stream at its
// first cut. But URLs end up in the logs of proxies and in histories, so it is
// no longer than the life of an access token.
const ticketTTL = 15 * time.Minute

// Ticket is what a ticket opens, and for whom: the stream of one message. The
// times of its Identity are those of the access token that it was made with
// (IssuedAt) and its own (ExpiresAt).
type Ticket struct {
	Identity
	MessageID int64
}

// IssueTicket returns a ticket for the stream of a message, and its life in
// seconds: 15 minutes, or AccessTTL where that is less, since a revocation is
// not kept for longer. Whether the message is the caller's to read is not asked
// here.
//
// A ticket is as old as the access token that it was made with: what revokes
// the one revokes the other, also where a replica made it before it had learned
// of the revocation. It may outlive that access token, and so a session, by its
// own short life.
func (t *Tokens) IssueTicket(caller Identity, messageID int64) (ticket string, expiresIn int64, err error) {
	if caller.UserID <= 0 || caller.SID == "" || caller.IssuedAt.IsZero() || messageID <= 0 {
		return "", 0, errors.New("auth: issue a ticket: the caller or the message is incomplete")
	}
	life := min(ticketTTL, t.config.AccessTTL)
	exp := time.Unix(t.config.Now().Unix()+int64(life/time.Second), 0)
	c := t.sessionClaims(rand.Text(), Session{UserID: caller.UserID, SID: caller.SID, Generation: caller.Generation}, caller.IssuedAt, exp)
	c["message_id"] = messageID
	ticket, err = sign(t.keys.Load().ring.signing(), typeTicket, c)
	return ticket, int64(life / time.Second), err
}

// VerifyTicket returns what a ticket opens. The error is an ErrInvalidToken.
// Whether its session was revoked is not asked here: see [Revoked].
func (t *Tokens) VerifyTicket(ticket string) (Ticket, error) {
	c, err := t.verify(t.keys.Load().ring, ticket, typeTicket)
	if err != nil {
		return Ticket{}, err
	}
	if c.messageID == 0 {
		return Ticket{}, invalid("no message")
	}
	return Ticket{c.identity(), c.messageID}, nil
}
