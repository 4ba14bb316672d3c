package handlers

import (
	"errors"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"parley/auth"
	"parley/models"
)

// maxUserName is the longest user name, in characters.
const maxUserName = 100

// signedInJSON is the answer to a sign-up or a login.
type signedInJSON struct {
	Message string   `json:"message"`
	User    userJSON `json:"user"`
	tokensJSON
}

// signup answers POST /auth/signup.
func (s *server) signup(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Email    string  `json:"email"`
		Password string  `json:"password"`
		UserName *string `json:"user_name"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := required("email", in.Email, "password", in.Password); err != nil {
		return err
	}
	email, err := auth.NormalizeEmail(in.Email)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(email, "@")
	if in.UserName != nil {
		if name, err = line(*in.UserName, maxUserName, "user_name"); err != nil {
			return err
		}
	}
	if err := auth.CheckPassword(in.Password, email); err != nil {
		return err
	}
	leave, err := s.passwords.Enter(r.Context())
	if err != nil {
		return err
	}
	defer leave()
	if _, err := s.throttle(w, r, signupPolicy, errTooManyAttempts, s.signupLimit(r)); err != nil {
		return err
	}
	hash, err := s.passwords.Hash(r.Context(), in.Password)
	if err != nil {
		return err
	}
	user := models.User{Email: email, UserName: name, PasswordHash: hash, CreatedAt: now()}
	device := s.newDevice(r, user)
	if err := s.db.CreateUser(r.Context(), &user, &device, by(r, 0)); err != nil {
		return err
	}
	return s.welcome(w, http.StatusCreated, "Account created.", user, device)
}

// signupLimit is what r is counted under when it may find out that an address
// has an account. Those attempts are not taken back.
func (s *server) signupLimit(r *http.Request) models.Limit {
	return limitOnNetwork(s.limits.Signups, "signups", network(r))
}

// newDevice is the device session of the user that r begins.
func (s *server) newDevice(r *http.Request, user models.User) models.DeviceSession {
	session := s.tokens.NewSession(user.ID)
	return models.DeviceSession{
		SID:          session.SID,
		UserID:       user.ID,
		Name:         deviceName(r.Header),
		IP:           infoOf(r).ip(),
		Generation:   session.Generation,
		RotatedAt:    session.RotatedAt,
		CreatedAt:    session.RotatedAt,
		LastSeenAt:   session.RotatedAt,
		ExpiresAt:    session.ExpiresAt,
		PasswordHash: user.PasswordHash,
	}
}

// issue makes the tokens of a device session.
func (s *server) issue(device models.DeviceSession) (tokensJSON, error) {
	pair, err := s.tokens.Issue(auth.Session{
		UserID:     device.UserID,
		SID:        device.SID,
		Generation: device.Generation,
		RotatedAt:  device.RotatedAt,
		ExpiresAt:  device.ExpiresAt,
	})
	return encodeTokens(pair), err
}

// welcome answers with the tokens of a device session that has begun.
func (s *server) welcome(w http.ResponseWriter, status int, message string, user models.User, device models.DeviceSession) error {
	tokens, err := s.issue(device)
	if err != nil {
		return err
	}
	if err := s.rememberDevice(w, user.ID); err != nil {
		return err
	}
	return reply(w, status, signedInJSON{message, encodeUser(user), tokens})
}

// refresh answers POST /auth/refresh.
func (s *server) refresh(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := required("refresh_token", in.RefreshToken); err != nil {
		return err
	}
	asked, err := s.tokens.VerifyRefresh(in.RefreshToken)
	if err != nil {
		return errInvalidRefresh
	}
	device, rotation, err := s.db.RotateSession(r.Context(), asked.SID, asked.Generation, now(), s.accessTTL, by(r, 0))
	switch {
	case errors.Is(err, models.ErrNotFound):
		return errInvalidRefresh
	case err != nil:
		return err
	case rotation == models.Reused:
		s.forget(r.Context(), asked.SID)
		return errReusedRefresh
	case device.UserID != asked.UserID:
		return errInvalidRefresh
	}
	tokens, err := s.issue(device)
	if errors.Is(err, auth.ErrInvalidToken) {
		return errInvalidRefresh // the session ended between the two
	}
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, tokens)
}

// checkAuth answers GET /auth/check. It is 200 for a token that is not valid
// too; only a database that cannot tell is an error.
func (s *server) checkAuth(w http.ResponseWriter, r *http.Request) error {
	type answer struct {
		Authenticated bool      `json:"authenticated"`
		User          *userJSON `json:"user,omitempty"`
	}
	caller, err := s.authenticate(r)
	var user models.User
	if err == nil {
		noted := s.noteUse(r.Context(), caller)
		defer noted()
		user, err = s.user(r.Context(), caller)
	}
	if err != nil {
		if problemOf(err).status >= http.StatusInternalServerError {
			return err
		}
		return reply(w, http.StatusOK, answer{})
	}
	shown := encodeUser(user)
	return reply(w, http.StatusOK, answer{true, &shown})
}

// line returns one line of text that a person gave for a field: without the
// white space around it, 1 to limit characters, none of them a control
// character.
func line(text string, limit int, field string) (string, error) {
	text = strings.TrimSpace(text)
	switch n := utf8.RuneCountInString(text); {
	case n == 0:
		return "", invalid("invalid_"+field, field, field+" must not be empty.")
	case n > limit:
		return "", invalid("invalid_"+field, field, field+" is too long.")
	case strings.ContainsFunc(text, unicode.IsControl):
		return "", invalid("invalid_"+field, field, field+" must not hold control characters.")
	}
	return text, nil
}
