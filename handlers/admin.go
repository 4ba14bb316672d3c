package handlers

import (
	"context"
	"net/http"
	"time"

	"parley/auth"
	"parley/models"
)

// admin makes h a handler for an administrator. Who is one is read from the
// database each time: a token does not tell.
func (s *server) admin(h signedIn) open {
	return s.signedIn(func(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
		user, err := s.user(r.Context(), caller)
		if err != nil {
			return err
		}
		if !user.IsAdmin {
			return errAdminRequired
		}
		return h(w, r, caller)
	})
}

// systemMetrics answers GET /admin/metrics/system.
func (s *server) systemMetrics(w http.ResponseWriter, r *http.Request, _ auth.Identity) error {
	m, err := s.db.SystemMetrics(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, encodeMetrics(m))
}

// listUsers answers GET /admin/users.
func (s *server) listUsers(w http.ResponseWriter, r *http.Request, _ auth.Identity) error {
	query, p, err := listed(r)
	if err != nil {
		return err
	}
	containing, err := searched(query)
	if err != nil {
		return err
	}
	users, next, err := s.db.Users(r.Context(), containing, p)
	if err != nil {
		return err
	}
	out := make([]userSummaryJSON, len(users))
	for i, u := range users {
		out[i] = encodeUserSummary(u)
	}
	return reply(w, http.StatusOK, struct {
		Users      []userSummaryJSON `json:"users"`
		NextCursor string            `json:"next_cursor,omitempty"`
	}{out, next})
}

// setUser answers PATCH /admin/users/{id}.
func (s *server) setUser(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	var in struct {
		Disabled *bool `json:"disabled"`
		IsAdmin  *bool `json:"is_admin"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	state := models.UserState{Disabled: in.Disabled, IsAdmin: in.IsAdmin}
	sids, err := s.db.SetUser(r.Context(), id, state, s.accessTTL, by(r, caller.UserID))
	if err != nil {
		return err
	}
	s.forget(r.Context(), sids...)
	user, err := s.db.UserSummary(r.Context(), id)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, encodeUserSummary(user))
}

// removeUser answers DELETE /admin/users/{id}.
func (s *server) removeUser(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	deleted, err := s.db.DeleteUser(r.Context(), id, "", s.accessTTL, by(r, caller.UserID))
	if err != nil {
		return err
	}
	s.forgetUser(r.Context(), id, deleted)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// forgetUser refuses the tokens of a user who is deleted, and ends its streams
// and replies.
func (s *server) forgetUser(ctx context.Context, userID int64, deleted models.Deleted) {
	at := now()
	s.revoked.Add("", userID, at, at.Add(s.accessTTL))
	s.forget(ctx, deleted.SIDs...)
	for _, messageID := range deleted.Running {
		s.hub.Forget(ctx, messageID)
	}
}

// deleteAllUsers answers POST /admin/delete-all-users. It goes on when the client
// has left: half of it is of no use.
func (s *server) deleteAllUsers(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	if _, err := bodyWithoutFields(r); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	who := by(r, caller.UserID)
	all, running, err := s.db.SignOutAll(ctx, s.accessTTL, who)
	if err != nil {
		return err
	}
	s.revoked.Add("", 0, all.RevokedAt, all.ExpiresAt)
	s.hub.CutOff()
	s.hub.Halt(ctx, running...)
	time.Sleep(models.WipePause)
	deleted, err := s.db.DeleteAllUsers(ctx, s.accessTTL, who)
	if err != nil {
		return err
	}
	s.forget(ctx, deleted.SIDs...)
	for _, messageID := range deleted.Running {
		s.hub.Forget(ctx, messageID)
	}
	return reply(w, http.StatusOK, said{"All users are deleted, administrators too."})
}

// listAudit answers GET /admin/audit.
func (s *server) listAudit(w http.ResponseWriter, r *http.Request, _ auth.Identity) error {
	_, p, err := listed(r)
	if err != nil {
		return err
	}
	entries, next, err := s.db.AuditEntries(r.Context(), p)
	if err != nil {
		return err
	}
	out := make([]auditEntryJSON, len(entries))
	for i, e := range entries {
		out[i] = encodeAuditEntry(e)
	}
	return reply(w, http.StatusOK, struct {
		Entries    []auditEntryJSON `json:"entries"`
		NextCursor string           `json:"next_cursor,omitempty"`
	}{out, next})
}
