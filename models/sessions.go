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
	IP             string // from which it signed in, or was last refreshed
	Generation     int64  // of the current refresh token; 1 is the first
	GenerationUsed bool   // the current generation's tokens have been seen in use
	RotatedAt      time.Time
	CreatedAt      time.Time
	LastSeenAt     time.Time
	ExpiresAt      time.Time // the end, however active it is; an expired session is none

	// PasswordHash is asked for by CreateSession alone, and not stored: the one
	// that the user's password was checked against.
	PasswordHash string `bun:"-"`
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
// LastSeenAt that time too. ErrNotFound if there is no such user, or it is
// disabled, or its password hash is not s.PasswordHash, unless that is "": who
// signs in while the password is changed does not get in by the former one.
func (d *DB) CreateSession(ctx context.Context, s *DeviceSession, by By) error {
	var session DeviceSession
	err := d.inSmallTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		// Held as it is: a change of the password either is seen here, or comes
		// after this session and ends it.
		u, err := d.holdUser(ctx, tx, s.UserID, "SHARE")
		if err != nil {
			return err
		}
		if u.DisabledAt != nil || s.PasswordHash != "" && s.PasswordHash != u.PasswordHash {
			return ErrNotFound
		}
		session = d.newSession(*s)
		if err := d.insertSession(ctx, tx, &session); err != nil {
			return err
		}
		return d.audit(ctx, tx, by, "session.started", s.UserID, s.Name)
	})
	if err != nil {
		return err
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
	s.PasswordHash = ""
	return s
}

// insertSession stores a session and sets its id.
func (d *DB) insertSession(ctx context.Context, tx bun.Tx, s *DeviceSession) error {
	return d.scan(ctx, tx, &s.ID, `INSERT INTO device_sessions
		(sid, user_id, name, ip, generation, generation_used, rotated_at, created_at, last_seen_at, expires_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`,
		s.SID, s.UserID, s.Name, s.IP, s.Generation, s.GenerationUsed, s.RotatedAt, s.CreatedAt, s.LastSeenAt, s.ExpiresAt)
}

// RotateSession exchanges the refresh token of a generation for its successor
// and returns the session as it stands then, at the address of by, unless that
// is "". The current generation is raised. The one before gets the same
// successor again while that has not been used, or for 10 s after the rotation.
// Anything older ends the session, revokes its tokens and tells the user by
// mail: of several callers one is told Reused, the others ErrNotFound, as for a
// session that has ended or expired, or never had that generation.
func (d *DB) RotateSession(ctx context.Context, sid string, generation int64, now time.Time, accessTTL time.Duration, by By) (DeviceSession, Rotation, error) {
	now = d.stamp(now)
	var s DeviceSession
	// One conditional statement: of those who present the same generation, one
	// changes the row. The others wait for its lock, and then the row no longer
	// matches.
	err := d.write.NewRaw(`
		UPDATE device_sessions
		SET generation = generation + 1, generation_used = FALSE, rotated_at = ?0, last_seen_at = ?0,
			ip = COALESCE(NULLIF(?3, ''), ip)
		WHERE sid = ?1 AND generation = ?2 AND expires_at > ?0
		RETURNING *`, now, sid, generation, by.IP).Scan(ctx, &s)
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
		if err := d.endReused(ctx, sid, accessTTL, by); err != nil {
			return DeviceSession{}, 0, err
		}
		return s, Reused, nil
	default:
		return DeviceSession{}, 0, ErrNotFound
	}
}

// endReused ends a session of which an old token was presented, and tells the
// user; ErrNotFound if somebody else has ended it.
func (d *DB) endReused(ctx context.Context, sid string, accessTTL time.Duration, by By) error {
	return d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		s, err := d.deleteSession(ctx, tx, "sid = ?", sid)
		if err != nil {
			return err
		}
		if err := d.audit(ctx, tx, by, "session.reused", s.UserID, s.Name); err != nil {
			return err
		}
		if err := d.notify(ctx, tx, MailSessionReused, s.UserID, by, map[string]string{"device": s.Name}); err != nil {
			return err
		}
		return d.revokeSessions(ctx, tx, []string{sid}, accessTTL)
	})
}

// TouchSession notes that tokens of a generation are in use. Only the first
// note after a rotation writes; another generation, or no session, is no error.
func (d *DB) TouchSession(ctx context.Context, sid string, generation int64, now time.Time) error {
	_, err := d.write.NewUpdate().Model((*DeviceSession)(nil)).
		Set("generation_used = TRUE").Set("last_seen_at = ?", d.stamp(now)).
		Where("sid = ? AND generation = ? AND NOT generation_used", sid, generation).Exec(ctx)
	return classify(ctx, err)
}
