package models

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/uptrace/bun"
)

// Devices returns the living device sessions of a user, latest use first.
func (d *DB) Devices(ctx context.Context, userID int64) ([]DeviceSession, error) {
	var sessions []DeviceSession
	err := d.read.NewSelect().Model(&sessions).Where("user_id = ? AND expires_at > ?", userID, d.now()).
		Order("last_seen_at DESC", "id DESC").Scan(ctx)
	return sessions, classify(ctx, err)
}

// SessionAlive says of whom an access token names if it may still act:
// ErrNotFound if the session has ended or expired, or its user is another one,
// disabled or gone. It is for who cannot read the feed of revocations.
func (d *DB) SessionAlive(ctx context.Context, sid string, userID int64) error {
	var one int
	err := d.read.NewRaw(`SELECT 1 FROM device_sessions s JOIN users u ON u.id = s.user_id
		WHERE s.sid = ? AND s.user_id = ? AND s.expires_at > ? AND u.disabled_at IS NULL`,
		sid, userID, d.now()).Scan(ctx, &one)
	return classify(ctx, err)
}

// KnownNetwork says if the address of a living device session of the user is
// within network.
func (d *DB) KnownNetwork(ctx context.Context, userID int64, network netip.Prefix) (bool, error) {
	var ips []string
	err := d.read.NewRaw("SELECT DISTINCT ip FROM device_sessions WHERE user_id = ? AND expires_at > ?",
		userID, d.now()).Scan(ctx, &ips)
	if err != nil {
		return false, classify(ctx, err)
	}
	return slices.ContainsFunc(ips, func(ip string) bool {
		addr, err := netip.ParseAddr(ip)
		return err == nil && network.Contains(addr.Unmap().WithZone(""))
	}), nil
}

// EndSession deletes a session and revokes its access tokens, none of which
// lives longer than accessTTL. An unknown sid is no error.
func (d *DB) EndSession(ctx context.Context, sid string, accessTTL time.Duration, by By) error {
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		s, err := d.deleteSession(ctx, tx, "sid = ?", sid)
		if err != nil {
			return err
		}
		if err := d.audit(ctx, tx, by, "session.ended", s.UserID, s.Name); err != nil {
			return err
		}
		return d.revokeSessions(ctx, tx, []string{sid}, accessTTL)
	})
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// EndDevice is EndSession by the id of a device of the user, and returns its
// sid. ErrNotFound, or ErrForbidden if it is somebody else's.
func (d *DB) EndDevice(ctx context.Context, userID, deviceID int64, accessTTL time.Duration, by By) (string, error) {
	var sid string
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) error {
		s, err := d.deleteSession(ctx, tx, "id = ? AND user_id = ?", deviceID, userID)
		if err != nil {
			return err
		}
		sid = s.SID
		if err := d.audit(ctx, tx, by, "device.removed", userID, s.Name); err != nil {
			return err
		}
		return d.revokeSessions(ctx, tx, []string{sid}, accessTTL)
	})
	if err == nil {
		return sid, nil
	}
	if !errors.Is(err, ErrNotFound) {
		return "", err
	}
	theirs, why := d.read.NewSelect().Model((*DeviceSession)(nil)).Where("id = ? AND user_id <> ?", deviceID, userID).Exists(ctx)
	if why != nil {
		return "", classify(ctx, why)
	}
	if theirs {
		return "", ErrForbidden
	}
	return "", err
}

// EndSessions ends all sessions of a user but exceptSID ("": all), as EndSession
// does, and returns their sids. For a user who is gone there are none.
func (d *DB) EndSessions(ctx context.Context, userID int64, exceptSID string, accessTTL time.Duration, by By) ([]string, error) {
	var sids []string
	err := d.inTx(ctx, func(ctx context.Context, tx bun.Tx) (err error) {
		sids = nil
		// One after the other: two that delete the same rows could each wait for
		// the other.
		if _, err := d.holdUser(ctx, tx, userID, "NO KEY UPDATE"); err != nil {
			return err
		}
		if sids, err = d.deleteSessions(ctx, tx, userID, exceptSID); err != nil || len(sids) == 0 {
			return err
		}
		if err := d.audit(ctx, tx, by, "sessions.ended", userID, ""); err != nil {
			return err
		}
		return d.revokeSessions(ctx, tx, sids, accessTTL)
	})
	if err != nil {
		sids = nil
	}
	if errors.Is(err, ErrNotFound) {
		err = nil
	}
	return sids, err
}

// deleteSession deletes one session: ErrNotFound if somebody else has, who then
// has announced it.
func (d *DB) deleteSession(ctx context.Context, tx bun.Tx, where string, args ...any) (DeviceSession, error) {
	var s DeviceSession
	res, err := tx.NewDelete().Model(&s).Where(where, args...).Returning("*").Exec(ctx)
	return s, changed(res, err)
}

// deleteSessions deletes the sessions of a user but exceptSID and returns their
// sids in order. The user's row is held.
func (d *DB) deleteSessions(ctx context.Context, tx bun.Tx, userID int64, exceptSID string) ([]string, error) {
	var sids []string
	err := tx.NewRaw("DELETE FROM device_sessions WHERE user_id = ? AND sid <> ? RETURNING sid", userID, exceptSID).Scan(ctx, &sids)
	slices.Sort(sids)
	return sids, err
}
