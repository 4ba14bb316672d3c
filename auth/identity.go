// Package auth says who is calling. It issues and verifies the access and
// refresh tokens of device sessions and their tickets for single streams, keeps
// the ring of signing keys, hashes and verifies passwords, judges addresses and
// passwords that people choose, and remembers which sessions were revoked.
//
// It never knows HTTP or SQL: callers hand it strings and times, and what has
// to be stored or answered is their business.
//
// Its invariant: whatever arrives is hostile until it was verified, and what
// is outside the profile is refused rather than understood. No error of this
// package holds a token, a key or a password.
package auth

import (
	"errors"
	"fmt"
	"time"
)

// Session is what a device session gives to its tokens. SID and Generation
// name the session and the rotation that the tokens belong to; ExpiresAt is
// the end of the session, however often it is refreshed.
type Session struct {
	UserID     int64
	SID        string
	Generation int64
	RotatedAt  time.Time
	ExpiresAt  time.Time
}

// Pair is the two tokens of one rotation of a session. The lifetimes are in
// seconds, counted from the moment of issue.
type Pair struct {
	AccessToken      string
	ExpiresIn        int64
	RefreshToken     string
	RefreshExpiresIn int64
}

// Identity is the caller that an access token speaks for. IssuedAt is exact
// to the microsecond, so that it can be compared with a revocation.
// Generation is 0 in a token that names none.
type Identity struct {
	UserID     int64
	SID        string
	Generation int64
	IssuedAt   time.Time
	ExpiresAt  time.Time
}

// Refresh is what a refresh token asks for: the next rotation of a session.
type Refresh struct {
	UserID     int64
	SID        string
	Generation int64
}

// Errors of the token functions. What wraps them says more, in words that are
// safe to log.
var (
	// ErrInvalidToken is any token out of the profile.
	ErrInvalidToken = errors.New("auth: invalid token")
	// ErrExpiredToken is a token that is past its time and would have been
	// valid before. It is an ErrInvalidToken.
	ErrExpiredToken = fmt.Errorf("%w: expired", ErrInvalidToken)
)

// Errors of the functions that judge and verify what people type.
var (
	// ErrWeakPassword is a password that CheckPassword does not take.
	ErrWeakPassword = errors.New("auth: weak password")
	// ErrInvalidEmail is an address that NormalizeEmail does not take.
	ErrInvalidEmail = errors.New("auth: invalid email address")
	// ErrBadHash is a stored password hash that cannot be read, or whose
	// cost is beyond what this package will spend.
	ErrBadHash = errors.New("auth: unusable password hash")
	// ErrBusy is a *Busy.
	ErrBusy = errors.New("auth: too many passwords at once")
)

// Busy is returned by Passwords.Enter when no place got free in time. After is how
// long it may take until the caller's turn comes.
type Busy struct {
	After time.Duration
}

func (b *Busy) Error() string { return ErrBusy.Error() }

// Is makes a Busy an ErrBusy.
func (b *Busy) Is(target error) bool { return target == ErrBusy }

// Refusal is why an address or a password was not taken. Reason is one
// sentence for the person who typed it; Unwrap gives ErrInvalidEmail or
// ErrWeakPassword.
type Refusal struct {
	Reason string
	kind   error
}

// Error is the kind of refusal with its reason.
func (r *Refusal) Error() string { return r.kind.Error() + ": " + r.Reason }

// Unwrap returns ErrInvalidEmail or ErrWeakPassword.
func (r *Refusal) Unwrap() error { return r.kind }
