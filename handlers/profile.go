package handlers

import (
	"context"
	"errors"
	"net/http"

	"parley/auth"
	"parley/models"
)

// profile answers GET /user/profile.
func (s *server) profile(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	user, err := s.user(r.Context(), caller)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, encodeUser(user))
}

// user returns the caller's account. A token whose user is gone is not valid.
func (s *server) user(ctx context.Context, caller auth.Identity) (models.User, error) {
	user, err := s.db.User(ctx, caller.UserID)
	switch {
	case errors.Is(err, models.ErrNotFound):
		return models.User{}, errInvalidToken
	case err != nil:
		return models.User{}, err
	case user.DisabledAt != nil:
		return models.User{}, errAccountDisabled
	}
	return user, nil
}

// changeProfile answers PATCH /user/profile. Who knows an account's address can
// ask for its password to be reset: a new one needs the current password.
func (s *server) changeProfile(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		UserName        *string `json:"user_name"`
		Email           *string `json:"email"`
		CurrentPassword string  `json:"current_password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	user, err := s.user(r.Context(), caller)
	if err != nil {
		return err
	}
	var change models.UserChange
	if in.UserName != nil {
		name, err := line(*in.UserName, maxUserName, "user_name")
		if err != nil {
			return err
		}
		change.UserName = &name
	}
	if in.Email != nil {
		email, err := auth.NormalizeEmail(*in.Email)
		if err != nil {
			return err
		}
		if email != user.Email {
			change.Email = &email
		}
	}
	switch {
	case change.Email != nil:
		if err := required("current_password", in.CurrentPassword); err != nil {
			return err
		}
		user, err = s.changeEmail(w, r, caller, in.CurrentPassword, change)
	case change.UserName != nil:
		user, err = s.db.UpdateUser(r.Context(), caller.UserID, change, by(r, caller.UserID))
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, encodeUser(user))
}

// changeEmail changes what change says, the address too. That an address has an
// account already is found out here as well as by a sign-up, and counted as one.
func (s *server) changeEmail(w http.ResponseWriter, r *http.Request, caller auth.Identity, password string, change models.UserChange) (models.User, error) {
	var changed models.User
	err := s.withPassword(w, r, caller, password, func(user models.User) (err error) {
		if _, err := s.throttle(w, r, signupPolicy, errTooManyAttempts, s.signupLimit(r)); err != nil {
			return err
		}
		change.PasswordHash = user.PasswordHash
		changed, err = s.db.UpdateUser(r.Context(), user.ID, change, by(r, user.ID))
		return err
	})
	return changed, err
}

// deleteUser answers DELETE /user: nothing of the account is left but what the
// audit says of it, without a name.
func (s *server) deleteUser(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		CurrentPassword string `json:"current_password"`
	}
	body, err := readOptionalJSON(r)
	if err != nil {
		return err
	}
	if err := unmarshal(body, &in); err != nil {
		return err
	}
	if err := required("current_password", in.CurrentPassword); err != nil {
		return err
	}
	var deleted models.Deleted
	err = s.withPassword(w, r, caller, in.CurrentPassword, func(user models.User) (err error) {
		deleted, err = s.db.DeleteUser(r.Context(), user.ID, user.PasswordHash, s.accessTTL, by(r, user.ID))
		return err
	})
	if err != nil {
		return err
	}
	s.forgetUser(r.Context(), caller.UserID, deleted)
	w.WriteHeader(http.StatusNoContent)
	return nil
}
