package handlers

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"parley/auth"
	"parley/models"
)

// deviceCookie names the cookie that tells a device which has signed in before
// from strangers who guess at a password, and deviceAge is how long a browser
// keeps it, in seconds.
const (
	deviceCookie = "parley_device"
	deviceAge    = 365 * 24 * 60 * 60
)

// login answers POST /auth/login.
func (s *server) login(w http.ResponseWriter, r *http.Request) (err error) {
	defer func() { s.countLoginOutcome(r, err) }()
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
	began := time.Now() // not before the body: a client could be slow with that
	user, device, err := s.signIn(w, r, in.Email, in.Password)
	if errors.Is(err, errInvalidCredentials) {
		s.takeTime(r.Context(), began)
	}
	if err != nil {
		return err
	}
	return s.welcome(w, http.StatusOK, "Signed in.", user, device)
}

// takeTime waits until the refusal of a request that began then may be
// answered: what was done for it must not show in the time that it took.
func (s *server) takeTime(ctx context.Context, began time.Time) {
	wait := time.NewTimer(time.Until(began.Add(s.refusalTime)))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}

// signIn begins a device session of the user with this address and password, or
// returns errInvalidCredentials. The same is done whether or not there is an
// account: it is looked for, the try is counted, and a hash is made.
//
// A try is counted before the password is looked at, so that many at once are
// no more than the limits allow, and taken back unless the password was wrong.
func (s *server) signIn(w http.ResponseWriter, r *http.Request, address, password string) (models.User, models.DeviceSession, error) {
	var (
		ctx    = r.Context()
		device models.DeviceSession
	)
	leave, err := s.passwords.Enter(ctx)
	if err != nil {
		return models.User{}, device, err
	}
	defer leave()
	email, err := auth.NormalizeEmail(address)
	if err == nil {
		address = email
	}
	user, err := s.db.UserByEmail(ctx, email) // what is no address is nobody's
	if err != nil && !errors.Is(err, models.ErrNotFound) {
		return user, device, err
	}
	try, err := s.countLogin(w, r, address, user)
	if err != nil {
		return user, device, err
	}
	err = s.withHash(ctx, user, password, func(u models.User, rehash bool) error {
		user = u
		if user.DisabledAt != nil {
			return errAccountDisabled
		}
		if rehash {
			s.replaceHash(ctx, &user, password)
		}
		device = s.newDevice(r, user)
		return s.db.CreateSession(ctx, &device, by(r, user.ID))
	})
	if errors.Is(err, models.ErrNotFound) {
		err = errInvalidCredentials // the account is gone
	}
	if !errors.Is(err, errInvalidCredentials) {
		s.takeBack(ctx, w.Header(), try)
	}
	return user, device, err
}

// withHash calls do with the user if this is the user's password, and says if
// its hash should be replaced; if it is not, it returns errInvalidCredentials.
// do may require that the user still has the hash that was looked at, and return
// models.ErrNotFound if not: then both is done again with the one that it has.
func (s *server) withHash(ctx context.Context, user models.User, password string, do func(user models.User, rehash bool) error) error {
	for {
		rehash, err := s.verify(ctx, user, password)
		if err == nil {
			err = do(user, rehash)
		}
		if !errors.Is(err, models.ErrNotFound) {
			return err
		}
		before := user.PasswordHash
		if user, err = s.db.User(ctx, user.ID); err != nil {
			return err
		}
		if user.PasswordHash == before {
			return models.ErrNotFound // of something else
		}
	}
}

// verify returns nil if this is the user's password, and says if its hash
// should be replaced; else errInvalidCredentials. For the zero User, who is
// nobody, that takes as long as for another.
func (s *server) verify(ctx context.Context, user models.User, password string) (rehash bool, err error) {
	if user.ID == 0 {
		if err := s.passwords.VerifyNothing(ctx, password); err != nil {
			return false, err
		}
		return false, errInvalidCredentials
	}
	ok, rehash, err := s.passwords.Verify(ctx, user.PasswordHash, password)
	switch {
	case errors.Is(err, auth.ErrBadHash) && ctx.Err() == nil:
		s.log.WarnContext(ctx, "a stored password hash cannot be used", "user_id", user.ID, "error", err)
		return false, errInvalidCredentials
	case err != nil:
		return false, err
	case !ok:
		return false, errInvalidCredentials
	}
	return rehash, nil
}

// replaceHash stores a hash of the current kind. That it could not is no reason
// to turn the user away.
func (s *server) replaceHash(ctx context.Context, user *models.User, password string) {
	hash, err := s.passwords.Hash(ctx, password)
	if err == nil {
		err = s.db.SetPasswordHash(ctx, user.ID, user.PasswordHash, hash)
	}
	if err != nil {
		s.log.WarnContext(ctx, "a password hash was not replaced", "user_id", user.ID, "error", err)
		return
	}
	user.PasswordHash = hash
}

// countLogin counts a try to sign in to the account of an address; user is the
// zero User if it has none. Strangers share what is left for the account; a
// device that is known to have signed in to it, or shares its network with one
// that is signed in, is let in though that is used up, and has a limit of its
// own. For an address without an account the same is asked and counted.
func (s *server) countLogin(w http.ResponseWriter, r *http.Request, address string, user models.User) (tally, error) {
	if device := s.knownDevice(r, user); device != "" {
		return s.countGuess(w, r, address, device)
	}
	ctx, net := r.Context(), network(r)
	place := "loopback"
	if net.IsValid() {
		place = net.String()
	}
	here := limitOn(s.limits.LoginAccountNetwork, "login", address, place)
	anywhere := limitOn(s.limits.LoginAccount, "login", address)
	around := limitOnNetwork(s.limits.LoginNetwork, "logins", net)
	try, err := s.count(ctx, loginPolicy, here, anywhere, around)
	if err != nil {
		return tally{}, err
	}
	binding := []models.Limit{here, anywhere, around}
	if try.refuses(anywhere) && !try.refuses(here) && !try.refuses(around) && net.IsValid() {
		known, err := s.db.KnownNetwork(ctx, user.ID, net)
		if err != nil {
			return tally{}, err
		}
		if known {
			binding = []models.Limit{here, around}
		}
	}
	return try, s.admit(ctx, w.Header(), try, errTooManyAttempts, binding...)
}

// countGuess counts a try of the password of an account by a device that has
// signed in to it.
func (s *server) countGuess(w http.ResponseWriter, r *http.Request, address, device string) (tally, error) {
	return s.throttle(w, r, loginPolicy, errTooManyAttempts, limitOn(s.limits.LoginAccountNetwork, "guess", address, device))
}

// knownDevice names the device that r comes from, if it shows that the user has
// signed in with it: by its cookie, or by an access token of the user. Else it
// is empty.
func (s *server) knownDevice(r *http.Request, user models.User) string {
	if cookie, err := r.Cookie(deviceCookie); err == nil {
		device, err := s.tokens.VerifyDevice(cookie.Value)
		// After a wipe somebody else may have the id.
		if err == nil && device.UserID == user.ID && !device.IssuedAt.Before(user.CreatedAt) {
			return "cookie " + cookie.Value
		}
	}
	token, err := bearerToken(r.Header)
	if err != nil {
		return ""
	}
	caller, err := s.tokens.VerifyAccess(token)
	if err != nil || caller.UserID != user.ID || s.revoked.Has(caller) {
		return ""
	}
	return sessionDevice(caller)
}

// sessionDevice names the device of a device session.
func sessionDevice(caller auth.Identity) string { return "session " + caller.SID }

// rememberDevice gives the client the cookie of a device that the user has
// signed in with. It opens nothing, so that it needs no protection from other
// sites but that they cannot send it.
func (s *server) rememberDevice(w http.ResponseWriter, userID int64) error {
	token, err := s.tokens.IssueDevice(userID)
	if err != nil {
		return err
	}
	http.SetCookie(w, &http.Cookie{ //nolint:gosec // a browser would drop a Secure cookie that comes without TLS
		Name: deviceCookie, Value: token, Path: "/api", MaxAge: deviceAge,
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: strings.HasPrefix(s.publicURL, "https:"),
	})
	return nil
}
