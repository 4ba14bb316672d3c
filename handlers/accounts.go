package handlers

import (
	"context"
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
	hash, err := s.passwords.Hash(r.Context(), in.Password)
	if err != nil {
		return err
	}
	user := models.User{Email: email, UserName: name, PasswordHash: hash, CreatedAt: now()}
	device := s.newDevice(r, 0)
	if err := s.db.CreateUser(r.Context(), &user, &device); err != nil {
		return err
	}
	return s.welcome(w, http.StatusCreated, "Account created.", user, device)
}

// login answers POST /auth/login.
func (s *server) login(w http.ResponseWriter, r *http.Request) error {
	var in struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}
	if err := decode(r, &in); err != nil {
		return err
	}
	if err := required("email", in.Email, "password", in.Password); err != nil {
		return err
	}
	user, err := s.checkPassword(r.Context(), in.Email, in.Password)
	if err != nil {
		return err
	}
	if user.DisabledAt != nil {
		return errAccountDisabled
	}
	device := s.newDevice(r, user.ID)
	if err := s.db.CreateSession(r.Context(), &device); err != nil {
		return err
	}
	return s.welcome(w, http.StatusOK, "Signed in.", user, device)
}

// checkPassword returns the user with this address and password, or
// errInvalidCredentials, which takes the same time whether or not there is an
// account. A hash of an older kind is replaced on the way.
func (s *server) checkPassword(ctx context.Context, email, password string) (models.User, error) {
	user, err := s.userByEmail(ctx, email)
	if errors.Is(err, models.ErrNotFound) {
		if err := s.passwords.VerifyNothing(ctx, password); err != nil {
			return models.User{}, err
		}
		return models.User{}, errInvalidCredentials
	}
	if err != nil {
		return models.User{}, err
	}
	ok, rehash, err := s.passwords.Verify(ctx, user.PasswordHash, password)
	switch {
	case errors.Is(err, auth.ErrBadHash) && !errors.Is(err, auth.ErrBusy) && ctx.Err() == nil:
		s.log.WarnContext(ctx, "a stored password hash cannot be used", "user_id", user.ID, "error", err)
		return models.User{}, errInvalidCredentials
	case err != nil:
		return models.User{}, err
	case !ok:
		return models.User{}, errInvalidCredentials
	}
	if rehash {
		if err := s.replaceHash(ctx, user, password); err != nil {
			s.log.WarnContext(ctx, "a password hash was not replaced", "user_id", user.ID, "error", err)
		}
	}
	return user, nil
}

// userByEmail finds a user. What is no address is nobody's.
func (s *server) userByEmail(ctx context.Context, email string) (models.User, error) {
	email, err := auth.NormalizeEmail(email)
	if err != nil {
		return models.User{}, models.ErrNotFound
	}
	return s.db.UserByEmail(ctx, email)
}

func (s *server) replaceHash(ctx context.Context, user models.User, password string) error {
	hash, err := s.passwords.Hash(ctx, password)
	if err != nil {
		return err
	}
	return s.db.SetPasswordHash(ctx, user.ID, user.PasswordHash, hash)
}

// newDevice is the device session that r begins.
func (s *server) newDevice(r *http.Request, userID int64) models.DeviceSession {
	session := s.tokens.NewSession(userID)
	var ip string
	if client := infoOf(r).client; client.IsValid() {
		ip = client.String()
	}
	return models.DeviceSession{
		SID:        session.SID,
		UserID:     userID,
		Name:       deviceName(r.Header),
		IP:         ip,
		Generation: session.Generation,
		RotatedAt:  session.RotatedAt,
		CreatedAt:  session.RotatedAt,
		LastSeenAt: session.RotatedAt,
		ExpiresAt:  session.ExpiresAt,
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

func (s *server) welcome(w http.ResponseWriter, status int, message string, user models.User, device models.DeviceSession) error {
	tokens, err := s.issue(device)
	if err != nil {
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
	device, rotation, err := s.db.RotateSession(r.Context(), asked.SID, asked.Generation, now())
	switch {
	case errors.Is(err, models.ErrNotFound):
		return errInvalidRefresh
	case err != nil:
		return err
	case rotation == models.Reused:
		s.forget(asked.SID)
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

// logout answers POST /auth/logout: it ends the device session of the bearer
// token, and that of the refresh token. A token that is not valid ends
// nothing, and so is as good as logged out.
func (s *server) logout(w http.ResponseWriter, r *http.Request) error {
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
	if token, err := bearerToken(r.Header); err == nil {
		if caller, err := s.tokens.VerifyAccess(token); err == nil {
			infoOf(r).userID = caller.UserID
			if err := s.endSession(r.Context(), caller.SID); err != nil {
				return err
			}
		}
	}
	if asked, err := s.tokens.VerifyRefresh(in.RefreshToken); err == nil {
		if err := s.endSession(r.Context(), asked.SID); err != nil {
			return err
		}
	}
	return reply(w, http.StatusOK, said{"Signed out."})
}

// endSession ends a device session: here at once, on the other replicas when
// they read of it.
func (s *server) endSession(ctx context.Context, sid string) error {
	if err := s.db.EndSession(ctx, sid, s.accessTTL); err != nil {
		return err
	}
	s.forget(sid)
	return nil
}

// forget refuses the access tokens of a session that has ended.
func (s *server) forget(sid string) {
	at := now()
	s.revoked.Add(sid, 0, at, at.Add(s.accessTTL))
}

// checkAuth answers GET /auth/check. It is 200 for a token that is not valid
// too; only a database that cannot tell is an error.
func (s *server) checkAuth(w http.ResponseWriter, r *http.Request) error {
	type answer struct {
		Authenticated bool      `json:"authenticated"`
		User          *userJSON `json:"user,omitempty"`
	}
	caller, err := s.authenticate(r)
	if err != nil {
		return reply(w, http.StatusOK, answer{})
	}
	user, err := s.user(r.Context(), caller)
	switch {
	case errors.Is(err, errInvalidToken), errors.Is(err, errAccountDisabled):
		return reply(w, http.StatusOK, answer{})
	case err != nil:
		return err
	}
	shown := encodeUser(user)
	return reply(w, http.StatusOK, answer{true, &shown})
}

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
