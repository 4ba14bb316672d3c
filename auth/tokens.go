package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// The types of tokens, as their headers name them (RFC 9068 §2.1 for the first). A token of one type never passes for another.
const (
	typeAccess  = "at+jwt"
	typeRefresh = "refresh+jwt"
	typeTicket  = "stream-ticket+jwt"
	typeDevice  = "device+jwt"
)

// TokenConfig is what every token of a service has in common. RefreshIdleTTL
// is how long a session may rest, RefreshMaxTTL how long it lasts in all. Now
// is the clock; nil is time.Now.
type TokenConfig struct {
	Issuer         string
	Audience       string
	AccessTTL      time.Duration
	RefreshIdleTTL time.Duration
	RefreshMaxTTL  time.Duration
	Now            func() time.Time
}

// Tokens issues and verifies the tokens of device sessions. It is safe for
// concurrent use.
type Tokens struct {
	config TokenConfig
	parser *jwt.Parser
	keys   atomic.Pointer[verifier]
}

// verifier is a key ring with the tokens that it has verified. They are
// replaced together: a verification that began under the old keys is
// remembered with the old keys, and so forgotten.
type verifier struct {
	ring       *KeyRing
	remembered *remembered
}

// NewTokens returns the tokens of a service. It panics if the issuer, the
// audience or a lifetime of a second or more is missing: an empty one would
// switch off a check.
func NewTokens(ring *KeyRing, config TokenConfig) *Tokens {
	if config.Issuer == "" || config.Audience == "" {
		panic("auth: tokens need an issuer and an audience")
	}
	if min(config.AccessTTL, config.RefreshIdleTTL, config.RefreshMaxTTL) < time.Second {
		panic("auth: tokens need lifetimes of a second or more")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	t := &Tokens{
		config: config,
		parser: jwt.NewParser(
			jwt.WithStrictDecoding(),
			jwt.WithIssuer(config.Issuer),
			jwt.WithAudience(config.Audience),
			jwt.WithExpirationRequired(),
			jwt.WithTimeFunc(config.Now),
		),
	}
	t.SetKeys(ring)
	return t
}

// SetKeys replaces the key ring. Tokens of keys that are not in the ring are
// invalid from then on, also those that were verified before.
func (t *Tokens) SetKeys(ring *KeyRing) {
	t.keys.Store(&verifier{ring: ring, remembered: newRemembered(rememberedTokens)})
}

// PublicKeys returns the JWK set of the public keys in use, as
// [KeyRing.Public] does.
func (t *Tokens) PublicKeys() []byte {
	return t.keys.Load().ring.Public()
}

// NewSession returns the first generation of a session that begins now, with
// a random SID. Its times are UTC and whole microseconds, so that a database
// gives them back as they are.
func (t *Tokens) NewSession(userID int64) Session {
	now := t.config.Now().UTC().Truncate(time.Microsecond)
	return Session{
		UserID:     userID,
		SID:        rand.Text(),
		Generation: 1,
		RotatedAt:  now,
		ExpiresAt:  now.Add(t.config.RefreshMaxTTL),
	}
}

// Issue returns the tokens of a session: a fresh access token, and the
// refresh token of this generation. Neither outlives the session; of one that
// has ended or rested too long it returns ErrExpiredToken.
//
// The refresh token of one (SID, Generation, RotatedAt) is always the same
// string while the signing key stays and is EdDSA, RS256 or HS256: who lost
// the answer to a rotation is given that answer again, by any replica. ES256
// signatures hold a random number; there the claims are the same, not the
// string.
func (t *Tokens) Issue(s Session) (Pair, error) {
	if s.UserID <= 0 || s.SID == "" || len(s.SID) > maxSIDBytes || s.Generation <= 0 {
		return Pair{}, errors.New("auth: issue tokens: the session is incomplete")
	}
	now := t.config.Now()
	accessExp := expiry(now, t.config.AccessTTL, s.ExpiresAt)
	refreshExp := expiry(s.RotatedAt, t.config.RefreshIdleTTL, s.ExpiresAt)
	if !now.Before(accessExp) || !now.Before(refreshExp) {
		return Pair{}, ErrExpiredToken
	}

	key := t.keys.Load().ring.signing()
	access, err := sign(key, typeAccess, t.sessionClaims(rand.Text(), s, now, accessExp))
	if err != nil {
		return Pair{}, err
	}
	refresh, err := sign(key, typeRefresh, t.sessionClaims(refreshID(s), s, s.RotatedAt, refreshExp))
	if err != nil {
		return Pair{}, err
	}
	return Pair{
		AccessToken:      access,
		ExpiresIn:        accessExp.Unix() - now.Unix(),
		RefreshToken:     refresh,
		RefreshExpiresIn: refreshExp.Unix() - now.Unix(),
	}, nil
}

// expiry is the end of a token issued at iat, in whole seconds.
func expiry(iat time.Time, ttl time.Duration, sessionEnd time.Time) time.Time {
	return time.Unix(min(iat.Unix()+int64(ttl/time.Second), sessionEnd.Unix()), 0)
}

// Rested reports whether a session has rested for so long that all tokens of its
// generation have expired, the last access token that could be issued with them
// too.
func (t *Tokens) Rested(s Session) bool {
	end := expiry(s.RotatedAt, t.config.RefreshIdleTTL, s.ExpiresAt).Add(t.config.AccessTTL)
	return !t.config.Now().Before(end)
}

// refreshID derives the jti of a refresh token, which has to be the same
// whoever computes it.
func refreshID(s Session) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(s.Generation))
	b = binary.BigEndian.AppendUint64(b, uint64(s.RotatedAt.UnixMicro()))
	sum := sha256.Sum256(append(b, s.SID...))
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// sessionClaims are those of a session's tokens.
func (t *Tokens) sessionClaims(jti string, s Session, iat, exp time.Time) jwt.MapClaims {
	c := t.claims(jti, s.UserID, iat, exp)
	c["sid"], c["gen"] = s.SID, s.Generation
	return c
}

// claims are those that every token has.
func (t *Tokens) claims(jti string, userID int64, iat, exp time.Time) jwt.MapClaims {
	return jwt.MapClaims{
		"iss":    t.config.Issuer,
		"aud":    t.config.Audience,
		"sub":    strconv.FormatInt(userID, 10),
		"exp":    exp.Unix(),
		"iat":    iat.Unix(),
		"iat_us": iat.UnixMicro() % 1e6,
		"jti":    jti,
	}
}

// sign makes one token. Maps are encoded with sorted keys, so that the same
// claims are the same bytes.
func sign(key *key, typ string, c jwt.MapClaims) (string, error) {
	token := jwt.NewWithClaims(key.method, c)
	token.Header["typ"] = typ
	token.Header["kid"] = key.id
	signed, err := token.SignedString(key.private)
	if err != nil {
		return "", fmt.Errorf("auth: sign with key %q: %w", key.id, err)
	}
	return signed, nil
}

// VerifyAccess returns the caller that an access token speaks for. The error
// is an ErrInvalidToken. A token that was verified is remembered until it
// expires, so that it costs one signature check and not one a request.
// Whether its session was revoked is not asked here: see [Revoked].
func (t *Tokens) VerifyAccess(token string) (Identity, error) {
	if len(token) > maxTokenBytes {
		return Identity{}, invalid("too long")
	}
	keys := t.keys.Load()
	sum := sha256.Sum256([]byte(token))
	if id, ok := keys.remembered.get(sum, t.config.Now()); ok {
		return id, nil
	}
	c, err := t.verify(keys.ring, token, typeAccess)
	if err != nil {
		return Identity{}, err
	}
	id := c.identity()
	keys.remembered.put(sum, id)
	return id, nil
}

// VerifyRefresh returns the rotation that a refresh token asks for. The error
// is an ErrInvalidToken. Whether the generation is still good is for the
// session's row to say.
func (t *Tokens) VerifyRefresh(token string) (Refresh, error) {
	c, err := t.verify(t.keys.Load().ring, token, typeRefresh)
	if err != nil {
		return Refresh{}, err
	}
	if c.generation == 0 {
		return Refresh{}, invalid("no generation")
	}
	return Refresh{UserID: c.userID, SID: c.sid, Generation: c.generation}, nil
}
