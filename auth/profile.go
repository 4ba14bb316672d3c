package auth

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// maxTokenBytes bounds what is parsed before a signature was checked.
	maxTokenBytes = 8 << 10
	maxSIDBytes   = 128
	// clockSkew is how far ahead the clock of the replica that issued a token
	// may be. Nothing is granted at the other end of a token's life.
	clockSkew = 2 * time.Second
	// maxUnix is the last second of the year 9999.
	maxUnix = 253402300799
)

func invalid(detail string) error {
	return fmt.Errorf("%w: %s", ErrInvalidToken, detail)
}

// verify reads a token of one type. golang-jwt checks the signature, iss, aud,
// exp and nbf; what it would let pass is refused here and in claims: header
// members other than alg, kid and typ (so crit, jwk, jku, x5u), an alg that is
// not the key's own, line ends inside the token, members given twice or in
// another case, and an iat that is missing or ahead.
func (t *Tokens) verify(ring *KeyRing, token, typ string) (*claims, error) {
	if len(token) > maxTokenBytes {
		return nil, invalid("too long")
	}
	// Go's base64 decoder skips line ends, in strict mode too.
	if strings.ContainsAny(token, "\r\n") {
		return nil, invalid("line end")
	}
	h, err := readHeader(token)
	if err != nil {
		return nil, err
	}
	if h.typ != typ {
		return nil, invalid("another typ")
	}
	key := ring.byID[h.kid]
	if key == nil {
		return nil, invalid("unknown kid")
	}
	if h.alg != key.method.Alg() {
		return nil, invalid("an alg that is not the key's")
	}
	c := claims{typ: typ}
	if _, err := t.parser.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return key.public, nil }); err != nil {
		return nil, tokenError(err)
	}
	if c.issuedAt.After(t.config.Now().Add(clockSkew)) {
		return nil, invalid("iat ahead")
	}
	return &c, nil
}

// tokenError says in our words why golang-jwt refused a token.
func tokenError(err error) error {
	switch {
	case errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return invalid("signature")
	case errors.Is(err, jwt.ErrTokenMalformed):
		return invalid("malformed")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return invalid("another iss")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return invalid("another aud")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return invalid("nbf ahead")
	case errors.Is(err, jwt.ErrTokenRequiredClaimMissing):
		return invalid("a claim is missing")
	case errors.Is(err, jwt.ErrTokenExpired):
		return ErrExpiredToken
	}
	return invalid("unverifiable")
}

type header struct{ alg, kid, typ string }

// readHeader reads the first segment of a token, which has exactly alg, kid
// and typ.
func readHeader(token string) (header, error) {
	segment, _, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.Strict().DecodeString(segment)
	if err != nil {
		return header{}, invalid("header encoding")
	}
	m, err := members(b)
	if err != nil {
		return header{}, invalid("header: " + err.Error())
	}
	var h header
	for name, into := range map[string]*string{"alg": &h.alg, "kid": &h.kid, "typ": &h.typ} {
		if err := m.read(name, into); err != nil {
			return header{}, invalid("header: " + err.Error())
		}
	}
	if len(m) != 3 {
		return header{}, invalid("header: a member that is not in the profile")
	}
	return h, nil
}

// claims are the claims of any token. Their times are whole seconds, as
// most readers of tokens expect; iat_us adds the microseconds of iat, without
// which a login in the second of a revocation would be taken for revoked.
// Claims that are not named here are ignored.
type claims struct {
	jwt.RegisteredClaims
	typ        string // of the token that they are read from
	userID     int64
	sid        string
	generation int64
	issuedAt   time.Time
	messageID  int64 // of a ticket
}

// identity is the caller that the token speaks for.
func (c *claims) identity() Identity {
	return Identity{
		UserID:     c.userID,
		SID:        c.sid,
		Generation: c.generation,
		IssuedAt:   c.issuedAt,
		ExpiresAt:  c.ExpiresAt.UTC(),
	}
}

// UnmarshalJSON reads claims strictly: each once, in its exact case, of its
// type, and those that the profile asks for present.
func (c *claims) UnmarshalJSON(b []byte) error {
	m, err := members(b)
	if err != nil {
		return err
	}
	var exp, iat, nbf, micros int64
	err = errors.Join(
		m.read("iss", &c.Issuer),
		m.read("aud", &c.Audience),
		m.read("sub", &c.Subject),
		m.read("exp", &exp),
		m.read("iat", &iat),
		m.read("jti", &c.ID),
		m.readOptional("sid", &c.sid),
		m.readOptional("nbf", &nbf),
		m.readOptional("gen", &c.generation),
		m.readOptional("iat_us", &micros),
		m.readOptional("message_id", &c.messageID),
	)
	if err != nil {
		return err
	}
	if !inRange(exp) || !inRange(iat) || !inRange(nbf) || micros < 0 || micros >= 1e6 {
		return errors.New("a time out of range")
	}
	c.ExpiresAt = jwt.NewNumericDate(time.Unix(exp, 0))
	c.NotBefore = jwt.NewNumericDate(time.Unix(nbf, 0))
	c.issuedAt = time.Unix(iat, micros*1000).UTC()
	if c.userID, err = parseUserID(c.Subject); err != nil {
		return err
	}
	if (c.sid == "") != (c.typ == typeDevice) {
		return errors.New("a session that is missing, or one in a token of none")
	}
	if c.ID == "" || len(c.sid) > maxSIDBytes || c.generation < 0 || c.messageID < 0 {
		return errors.New("jti, sid, gen or message_id is out of range")
	}
	return nil
}

// parseUserID reads a user's id as it is written canonically.
func parseUserID(sub string) (int64, error) {
	id, err := strconv.ParseInt(sub, 10, 64)
	if err != nil || id <= 0 || strconv.FormatInt(id, 10) != sub {
		return 0, errors.New("sub is no user id")
	}
	return id, nil
}

// inRange reports whether a claim is a time, in seconds, that can be computed with.
func inRange(seconds int64) bool { return 0 <= seconds && seconds <= maxUnix }

// object is a JSON object with its members unread.
type object map[string]json.RawMessage

// members reads one JSON object and nothing after it. A member that is given
// twice is an error: readers differ in which of the two they believe. The
// names are compared as they are, where encoding/json would take any case.
func members(b []byte) (object, error) {
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, errors.New("no valid JSON")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("no JSON object")
	}
	m := make(object)
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return nil, errors.New("no valid JSON")
		}
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return nil, errors.New("no valid JSON")
		}
		if _, twice := m[name.(string)]; twice {
			return nil, errors.New("a member is given twice")
		}
		m[name.(string)] = value
	}
	return m, nil
}

// read decodes a member that has to be there.
func (m object) read(name string, into any) error {
	raw, given := m[name]
	if !given {
		return errors.New(name + " is missing")
	}
	if bytes.Equal(raw, []byte("null")) || json.Unmarshal(raw, into) != nil {
		return errors.New(name + " has a wrong type")
	}
	return nil
}

// readOptional decodes a member if it is there.
func (m object) readOptional(name string, into any) error {
	if _, given := m[name]; !given {
		return nil
	}
	return m.read(name, into)
}
