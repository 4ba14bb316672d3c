package models

import (
	"context"
	"errors"
	"time"

	"github.com/uptrace/bun"
)

// A DeviceSession is a signed-in device. Its size is constant: of the refresh
// tokens that it had, it knows only how many there were.
type DeviceSession struct {
	ID             int64  `bun:",pk,autoincrement"`
	SID            string // unique and random; what tokens name
	UserID         int64
	Name           string // from User-Agent
	IP             string
	Generation     int64 // of the current refresh token; 1 is the first
	GenerationUsed bool  // the current generation's tokens have been seen in use
	RotatedAt      time.Time
	CreatedAt      time.Time
	LastSeenAt     time.Time
	ExpiresAt      time.Time // the end, however active it is; an expired session is none
}

// Rotation is what became of a refresh token that was presented.
type Rotation int

// What RotateSession found.
const (
	Rotated  Rotation = iota + 1 // it was the current one; a successor was made
	Repeated                     // its successor is current and was given out again
	Reused                       // it was older: the session has been ended
)

// repeatWindow is how long after a rotation the previous token still gets the
// same successor, though that one is in use.
const repeatWindow = 10 * time.Second

// CreateSession adds a device session of s.UserID and sets its id. Of what is
// left zero, Generation becomes 1, CreatedAt the present, and RotatedAt and
// LastSeenAt that time too. ErrNotFound if there is no such user.
func (d *DB) CreateSession(ctx context.Context, s *DeviceSession) error {
	session := d.newSession(*s)
	if _, err := d.write.NewInsert().Model(&session).Exec(ctx); err != nil {
		return classify(ctx, withoutParent(err))
	}
	*s = session
	return nil
}

// newSession is s as CreateSession stores it.
func (d *DB) newSession(s DeviceSession) DeviceSession {
	s.Generation = max(s.Generation, 1)
	s.CreatedAt = d.stamp(s.CreatedAt)
	for _, t := range []*time.Time{&s.RotatedAt, &s.LastSeenAt} {
		if t.IsZero() {
			*t = s.CreatedAt
		}
		*t = d.stamp(*t)
	}
	s.ExpiresAt = d.stamp(s.ExpiresAt)
	return s
}

// RotateSession exchanges the refresh token of a generation for its successor
// and returns the session as it stands then. The current generation is raised.
// The one before gets the same successor again while that has not been used, or
// for 10 s after the rotation. Anything older ends the session and revokes its
// tokens. ErrNotFound if the session has ended or expired, or never had that
// generation.
func (d *DB) RotateSession(ctx context.Context, sid string, generation int64, now time.Time) (DeviceSession, Rotation, error) {
	now = d.stamp(now)
	var s DeviceSession
	// One conditional statement: of those who present the same generation, one
	// changes the row. The others wait for its lock, and then the row no longer
	// matches.
	err := d.write.NewRaw(`
		UPDATE device_sessions
		SET generation = generation + 1, generation_used = FALSE, rotated_at = ?0, last_seen_at = ?0
		WHERE sid = ?1 AND generation = ?2 AND expires_at > ?0
		RETURNING *`, now, sid, generation).Scan(ctx, &s)
	if err = classify(ctx, err); err == nil {
		return s, Rotated, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return DeviceSession{}, 0, err
	}
	err = d.read.NewSelect().Model(&s).Where("sid = ? AND expires_at > ?", sid, now).Scan(ctx)
	if err != nil {
		return DeviceSession{}, 0, classify(ctx, err)
	}
	switch age := s.Generation - generation; {
	case age == 1 && (!s.GenerationUsed || now.Before(s.RotatedAt.Add(repeatWindow))):
		return s, Repeated, nil
	case age >= 1:
		// What is too old now stays so: nothing that happens in between can
		// make it wrong to end the session.
		if err := d.endSession(ctx, sid, now, s.ExpiresAt); err != nil {
			return DeviceSession{}, 0, err
		}
		return s, Reused, nil
	default:
		return DeviceSession{}, 0, ErrNotFound
	}
}

// TouchSession notes that tokens of a generation are in use. Only the first
// note after a rotation writes; another generation, or no session, is no error.
func (d *DB) TouchSession(ctx context.Context, sid string, generation int64, now time.Time) error {
	_, err := d.write.NewUpdate().Model((*DeviceSession)(nil)).
		Set("generation_used = TRUE").Set("last_seen_at = ?", d.stamp(now)).
		Where("sid = ? AND generation = ? AND NOT generation_used", sid, generation).Exec(ctx)
	return classify(ctx, err)
}

// EndSession deletes a session and revokes its access tokens, none of which
// lives longer than accessTTL from here on. An unknown sid is no error.
func (d *DB) EndSession(ctx context.Context, sid string, accessTTL time.Duration) error {
	now := d.now()
	err := d.endSession(ctx, sid, now, now.Add(accessTTL))
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// endSession deletes a session and announces it until expires; ErrNotFound if
// somebody else has, who then has announced it.
func (d *DB) endSession(ctx context.Context, sid string, now, expires time.Time) error {
	return d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewDelete().Model((*DeviceSession)(nil)).Where("sid = ?", sid).Exec(ctx)
		if err := changed(res, err); err != nil {
			return err
		}
		return d.revoke(ctx, tx, Revocation{SID: sid, RevokedAt: now, ExpiresAt: expires})
	})
}
