package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/golang-jwt/jwt/v5"
)

// maxKeyIDBytes bounds a kid, which is in every token.
const maxKeyIDBytes = 128

// KeyRing is a set of keys: the first signs, all verify. It does not change,
// and is safe for concurrent use; to change keys, make another ring and give
// it to [Tokens.SetKeys].
type KeyRing struct {
	keys   []*key
	byID   map[string]*key
	public []byte
}

// key is one key with the one algorithm it is for. Its halves have the types
// that the signing method wants; private is nil where only the public half is
// known.
type key struct {
	id      string
	method  jwt.SigningMethod
	private any
	public  any
	// published is the JWK that others may see, nil for a symmetric key.
	published publicJWK
}

// publicJWK is a JWK without private members.
type publicJWK map[string]string

// NewKeyRing reads a JWK set (RFC 7517 §5). Each key has a kid of its own and
// an alg: EdDSA (Ed25519, RFC 8037), ES256, RS256 of 2048 bits or more, or
// HS256 of 32 bytes or more. The first key has its private part. A key of any
// other kind is an error, not a key passed over. The error names the entry
// and what is wrong with it, and holds no part of a key.
func NewKeyRing(jwkSet []byte) (*KeyRing, error) {
	set, err := members(jwkSet)
	if err != nil {
		return nil, fmt.Errorf("auth: key set: %w", err)
	}
	var entries []json.RawMessage
	if err := set.read("keys", &entries); err != nil {
		return nil, fmt.Errorf("auth: key set: %w", err)
	}
	if len(entries) == 0 {
		return nil, errors.New("auth: key set: no keys")
	}
	ring := &KeyRing{byID: make(map[string]*key)}
	published := make([]publicJWK, 0, len(entries))
	for i, entry := range entries {
		k, err := parseKey(entry)
		if err == nil && ring.byID[k.id] != nil {
			err = errors.New("another key has the same kid")
		}
		if err == nil && i == 0 && k.private == nil {
			err = errors.New("the first key signs and needs its private part")
		}
		if err != nil {
			return nil, fmt.Errorf("auth: key set: %s: %w", entryName(i, entry), err)
		}
		ring.keys = append(ring.keys, k)
		ring.byID[k.id] = k
		if k.published != nil {
			published = append(published, k.published)
		}
	}
	ring.public, err = json.Marshal(map[string]any{"keys": published})
	if err != nil {
		return nil, fmt.Errorf("auth: key set: %w", err)
	}
	return ring, nil
}

// entryName names an entry for an error: by its place, and by its kid where
// it has one.
func entryName(i int, entry []byte) string {
	name := fmt.Sprintf("key %d", i+1)
	m, err := members(entry)
	if err != nil {
		return name
	}
	var id string
	if m.read("kid", &id) != nil || id == "" || len(id) > maxKeyIDBytes {
		return name
	}
	return fmt.Sprintf("%s (kid %q)", name, id)
}

// Public returns the ring as a JWK set of public keys, as
// /.well-known/jwks.json shows it. Private parts and symmetric keys are never
// in it.
func (r *KeyRing) Public() []byte {
	return append([]byte(nil), r.public...)
}

func (r *KeyRing) signing() *key { return r.keys[0] }

// GenerateKeySet returns a JWK set with one fresh Ed25519 key and its private
// part, as text that NewKeyRing reads. The kid is the key's thumbprint
// (RFC 7638).
func GenerateKeySet() ([]byte, error) {
	entry, err := generateKey()
	if err != nil {
		return nil, err
	}
	return formatKeySet(object{}, []object{entry})
}

// generateKey returns the JWK of a fresh Ed25519 key.
func generateKey() (object, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("auth: generate a key: %w", err)
	}
	x := encode(public)
	thumbprint := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	entry := make(object)
	for name, value := range map[string]string{
		"kty": "OKP",
		"crv": "Ed25519",
		"alg": jwt.SigningMethodEdDSA.Alg(),
		"use": "sig",
		"kid": encode(thumbprint[:]),
		"x":   x,
		"d":   encode(private.Seed()),
	} {
		entry.set(name, value)
	}
	return entry, nil
}

// set writes a member that is a string without anything to escape.
func (m object) set(name, value string) { m[name] = json.RawMessage(`"` + value + `"`) }

// formatKeySet writes a JWK set for people to read: set with these keys.
func formatKeySet(set object, keys []object) ([]byte, error) {
	list, err := json.Marshal(keys)
	if err != nil {
		return nil, fmt.Errorf("auth: write a key set: %w", err)
	}
	set["keys"] = list
	text, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("auth: write a key set: %w", err)
	}
	return append(text, '\n'), nil
}
