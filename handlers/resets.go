package handlers

import (
	"context"
	"errors"
	"net/http"
	"time"

	"parley/auth"
	"parley/models"
)

// requestReset answers POST /auth/reset-password-request: the same, and after
// the same time, whether or not the address has an account, and whether or not
// it has got too many mails to get another one.
func (s *server) requestReset(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Email string `json:"email"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := required("email", in.Email); err != nil {
		return err
	}
	began := time.Now() // not before the body: a client could be slow with that
	email, err := auth.NormalizeEmail(in.Email)
	if err != nil {
		email = "" // what is no address is nobody's
	}
	ctx := r.Context()
	around := limitOnNetwork(s.limits.ResetRequests, "reset requests", network(r))
	mails := limitOn(s.limits.ResetMails, "reset mails", email)
	asked, err := s.count(ctx, resetPolicy, around, mails)
	if err != nil {
		return err
	}
	if err := s.admit(ctx, w.Header(), asked, errTooManyAttempts, around); err != nil {
		return err
	}
	if asked.refuses(mails) {
		s.metrics.Throttled("reset-mails")
		email = "" // nobody's too: all is done as for another
	}
	if err := s.db.RequestReset(ctx, email, by(r, 0)); err != nil {
		return err
	}
	s.takeTime(ctx, began)
	return reply(w, http.StatusOK, said{"If there is an account with this address, a mail with a link is on its way."})
}

// checkReset answers GET /auth/reset-password/{token}.
func (s *server) checkReset(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.resetOf(r.Context(), infoOf(r).params.ByName("token")); err != nil {
		return err
	}
	return reply(w, http.StatusOK, struct {
		Valid bool `json:"valid"`
	}{true})
}

// resetPassword answers POST /auth/reset-password/{token}.
func (s *server) resetPassword(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Password string `json:"password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := required("password", in.Password); err != nil {
		return err
	}
	if err := s.reset(r, infoOf(r).params.ByName("token"), in.Password); err != nil {
		return err
	}
	return reply(w, http.StatusOK, said{passwordReset})
}

// passwordReset is what a person is told whose password was reset.
const passwordReset = "The password is changed, and all devices were signed out. Sign in with the new password."

// resetOf returns whose password the token resets, or errInvalidReset. It uses
// nothing up.
func (s *server) resetOf(ctx context.Context, token string) (models.User, error) {
	user, err := s.db.Reset(ctx, auth.HashResetToken(token), now())
	if errors.Is(err, models.ErrNotFound) {
		return models.User{}, errInvalidReset
	}
	return user, err
}

// reset uses the token up and sets the password, which ends all device sessions
// of its user. Of several that use one token one succeeds.
func (s *server) reset(r *http.Request, token, password string) error {
	ctx := r.Context()
	leave, err := s.passwords.Enter(ctx)
	if err != nil {
		return err
	}
	defer leave()
	user, err := s.resetOf(ctx, token)
	if err != nil {
		return err
	}
	if err := auth.CheckPassword(password, user.Email); err != nil {
		return err
	}
	hash, err := s.passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	userID, ended, err := s.db.UseReset(ctx, auth.HashResetToken(token), hash, now(), s.accessTTL, by(r, 0))
	if errors.Is(err, models.ErrNotFound) {
		return errInvalidReset
	}
	if err != nil {
		return err
	}
	infoOf(r).userID = userID
	s.forget(r.Context(), ended...)
	return nil
}
