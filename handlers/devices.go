package handlers

import (
	"context"
	"net/http"

	"parley/auth"
	"parley/models"
	"parley/stream"
)

// by is who sent r, for the audit.
func by(r *http.Request, userID int64) models.By {
	info := infoOf(r)
	return models.By{UserID: userID, IP: info.ip(), RequestID: info.id}
}

// viewer is whose stream it is that a caller opens.
func viewer(caller auth.Identity) stream.Viewer {
	return stream.Viewer{UserID: caller.UserID, SID: caller.SID, IssuedAt: caller.IssuedAt}
}

// forget refuses the access tokens of device sessions that have ended, and ends
// their streams: here at once, on the other replicas as they are told.
func (s *server) forget(ctx context.Context, sids ...string) {
	at := now()
	for _, sid := range sids {
		s.revoked.Add(sid, 0, at, at.Add(s.accessTTL))
	}
	s.hub.CutOff()
	if len(sids) > 0 {
		s.hub.TellSessionsEnded(ctx)
	}
}

// listDevices answers GET /auth/devices, the one that was used last first. One that
// rested too long is signed in no longer, though it is stored.
func (s *server) listDevices(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	devices, err := s.db.Devices(r.Context(), caller.UserID)
	if err != nil {
		return err
	}
	out := make([]deviceJSON, 0, len(devices))
	for _, d := range devices {
		if !s.tokens.Rested(auth.Session{RotatedAt: d.RotatedAt, ExpiresAt: d.ExpiresAt}) {
			out = append(out, encodeDevice(d, caller))
		}
	}
	return reply(w, http.StatusOK, struct {
		Devices []deviceJSON `json:"devices"`
	}{out})
}

// removeDevice answers DELETE /auth/devices/{id}.
func (s *server) removeDevice(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	sid, err := s.db.EndDevice(r.Context(), caller.UserID, id, s.accessTTL, by(r, caller.UserID))
	if err != nil {
		return err
	}
	s.forget(r.Context(), sid)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// logout answers POST /auth/logout: it ends the device session of the bearer
// token, and that of the refresh token. A token that is not valid ends
// nothing, and so is as good as logged out.
//
// The bearer token comes first: a client that signs out seldom looks at the answer,
// and a body that cannot be read must not keep it signed in.
func (s *server) logout(w http.ResponseWriter, r *http.Request) error {
	if token, err := bearerToken(r.Header); err == nil {
		if caller, err := s.tokens.VerifyAccess(token); err == nil {
			infoOf(r).userID = caller.UserID
			if err := s.endSession(r, caller.SID, caller.UserID); err != nil {
				return err
			}
		}
	}
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	body, err := readOptionalJSON(r)
	if err != nil {
		return err
	}
	if err := unmarshal(body, &in); err != nil {
		return err
	}
	if asked, err := s.tokens.VerifyRefresh(in.RefreshToken); err == nil {
		if err := s.endSession(r, asked.SID, asked.UserID); err != nil {
			return err
		}
	}
	return reply(w, http.StatusOK, said{"Signed out."})
}

func (s *server) endSession(r *http.Request, sid string, userID int64) error {
	if err := s.db.EndSession(r.Context(), sid, s.accessTTL, by(r, userID)); err != nil {
		return err
	}
	s.forget(r.Context(), sid)
	return nil
}

// logoutAll answers POST /auth/logout-all.
func (s *server) logoutAll(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	if _, err := bodyWithoutFields(r); err != nil {
		return err
	}
	sids, err := s.db.EndSessions(r.Context(), caller.UserID, "", s.accessTTL, by(r, caller.UserID))
	if err != nil {
		return err
	}
	s.forget(r.Context(), sids...)
	return reply(w, http.StatusOK, said{"Signed out everywhere."})
}
