package handlers

import (
	"errors"
	"net/http"

	"parley/auth"
	"parley/models"
)

// withPassword calls do with the caller's account if this is its password, and
// else returns errWrongPassword. Wrong ones are counted like those of a login
// from a known device, which the bearer of a token is: a stolen token must not
// be the way to guess the password at leisure.
//
// do may return models.ErrNotFound, as that of withHash may.
func (s *server) withPassword(w http.ResponseWriter, r *http.Request, caller auth.Identity, password string, do func(models.User) error) error {
	leave, err := s.passwords.Enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	user, err := s.user(r.Context(), caller)
	if err != nil {
		return err
	}
	try, err := s.countGuess(w, r, user.Email, sessionDevice(caller))
	if err != nil {
		return err
	}
	err = s.withHash(r.Context(), user, password, func(user models.User, _ bool) error { return do(user) })
	if errors.Is(err, errInvalidCredentials) {
		return errWrongPassword
	}
	s.takeBack(r.Context(), w.Header(), try)
	return err
}

// changePassword answers POST /auth/change-password. The device that it comes
// from stays signed in, and no other.
func (s *server) changePassword(w http.ResponseWriter, r *http.Request, caller auth.Identity) error {
	var in struct {
		CurrentPassword string `json:"current_password"`
		NewPassword     string `json:"new_password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := required("current_password", in.CurrentPassword, "new_password", in.NewPassword); err != nil {
		return err
	}
	user, err := s.user(r.Context(), caller)
	if err != nil {
		return err
	}
	if err := checkNewPassword(in.NewPassword, user.Email, "new_password"); err != nil {
		return err
	}
	var ended []string
	err = s.withPassword(w, r, caller, in.CurrentPassword, func(user models.User) error {
		hash, err := s.passwords.Hash(r.Context(), in.NewPassword)
		if err != nil {
			return err
		}
		ended, err = s.db.ChangePassword(r.Context(), user.ID, user.PasswordHash, hash, caller.SID, s.accessTTL, by(r, user.ID))
		return err
	})
	if err != nil {
		return err
	}
	s.forget(r.Context(), ended...)
	return reply(w, http.StatusOK, said{"Password changed; other devices were signed out."})
}

// checkNewPassword is auth.CheckPassword for a field of another name.
func checkNewPassword(password, email, field string) error {
	err := auth.CheckPassword(password, email)
	if err == nil {
		return nil
	}
	p := problemOf(err)
	return invalid(p.code, field, p.detail)
}
