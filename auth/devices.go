package auth

import (
	"crypto/rand"
	"errors"
	"time"
)

// deviceTTL is how long a device is known after it last signed in.
const deviceTTL = 365 * 24 * time.Hour

// A Device is one that UserID has signed in with, at IssuedAt, which is exact to
// the microsecond.
type Device struct {
	UserID   int64
	IssuedAt time.Time
}

// IssueDevice returns the token of a device that the user has just signed in
// with, good for a year. It opens nothing: it tells that device from strangers
// who guess at the account's password, so that their failures do not lock it
// out. (A "device cookie", as OWASP's page on slowing down guesses calls it.)
func (t *Tokens) IssueDevice(userID int64) (string, error) {
	if userID <= 0 {
		return "", errors.New("auth: issue a device token: there is no user")
	}
	now := t.config.Now()
	return sign(t.keys.Load().ring.signing(), typeDevice, t.claims(rand.Text(), userID, now, now.Add(deviceTTL)))
}

// VerifyDevice returns the device that a token tells of. The error is an
// ErrInvalidToken.
func (t *Tokens) VerifyDevice(token string) (Device, error) {
	c, err := t.verify(t.keys.Load().ring, token, typeDevice)
	if err != nil {
		return Device{}, err
	}
	return Device{UserID: c.userID, IssuedAt: c.issuedAt}, nil
}
