package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"

	"github.com/golang-jwt/jwt/v5"
)

const (
	minRSABits    = 2048
	maxRSABits    = 8192
	minSecretSize = 32
)

var errMismatch = errors.New("the private part does not belong to the public part")

// keyKinds holds, for each algorithm, the key type it wants and how such a key
// is read.
var keyKinds = map[string]struct {
	kty    string
	method jwt.SigningMethod
	parse  func(object, *key) error
}{
	"EdDSA": {"OKP", jwt.SigningMethodEdDSA, parseEd25519},
	"ES256": {"EC", jwt.SigningMethodES256, parseP256},
	"RS256": {"RSA", jwt.SigningMethodRS256, parseRSA},
	"HS256": {"oct", jwt.SigningMethodHS256, parseSecret},
}

// parseKey reads one JWK.
func parseKey(entry []byte) (*key, error) {
	m, err := members(entry)
	if err != nil {
		return nil, err
	}
	var id, alg, kty string
	if err := errors.Join(m.read("kid", &id), m.read("alg", &alg), m.read("kty", &kty)); err != nil {
		return nil, err
	}
	if id == "" || len(id) > maxKeyIDBytes {
		return nil, fmt.Errorf("kid is not 1 to %d bytes", maxKeyIDBytes)
	}
	use := "sig"
	if err := m.readOptional("use", &use); err != nil {
		return nil, err
	}
	if use != "sig" {
		return nil, errors.New(`use is not "sig"`)
	}
	kind, known := keyKinds[alg]
	if !known {
		return nil, errors.New("alg is none of EdDSA, ES256, RS256, HS256")
	}
	if kty != kind.kty {
		return nil, fmt.Errorf("kty is not %q, which alg %q wants", kind.kty, alg)
	}
	k := &key{id: id, method: kind.method}
	if err := kind.parse(m, k); err != nil {
		return nil, err
	}
	if k.published != nil {
		k.published["kid"], k.published["alg"], k.published["kty"], k.published["use"] = id, alg, kty, "sig"
	}
	return k, nil
}

// bytes decodes a base64url member, which has to be there.
func (m object) bytes(name string) ([]byte, error) {
	var text string
	if err := m.read(name, &text); err != nil {
		return nil, err
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, errors.New(name + " is not base64url")
	}
	return b, nil
}

// curveBytes decodes a base64url member of 32 bytes, which is what a coordinate
// and a private key have on either curve.
func (m object) curveBytes(name string) ([]byte, error) {
	b, err := m.bytes(name)
	if err == nil && len(b) != 32 {
		err = errors.New(name + " is not 32 bytes")
	}
	return b, err
}

// integer decodes a base64url member that is a positive big-endian integer.
func (m object) integer(name string) (*big.Int, error) {
	b, err := m.bytes(name)
	if err != nil {
		return nil, err
	}
	n := new(big.Int).SetBytes(b)
	if n.Sign() == 0 {
		return nil, errors.New(name + " is zero")
	}
	return n, nil
}

func (m object) has(name string) bool {
	_, given := m[name]
	return given
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// parseEd25519 reads a key of RFC 8037 §2.
func parseEd25519(m object, k *key) error {
	var crv string
	if err := m.read("crv", &crv); err != nil {
		return err
	}
	if crv != "Ed25519" {
		return errors.New(`crv is not "Ed25519"`)
	}
	x, err := m.curveBytes("x")
	if err != nil {
		return err
	}
	public := ed25519.PublicKey(x)
	k.public = public
	k.published = publicJWK{"crv": crv, "x": encode(x)}
	if !m.has("d") {
		return nil
	}
	seed, err := m.curveBytes("d")
	if err != nil {
		return err
	}
	private := ed25519.NewKeyFromSeed(seed)
	if !public.Equal(private.Public()) {
		return errMismatch
	}
	k.private = private
	return nil
}

// parseP256 reads a key of RFC 7518 §6.2 on the curve of ES256.
func parseP256(m object, k *key) error {
	var crv string
	if err := m.read("crv", &crv); err != nil {
		return err
	}
	if crv != "P-256" {
		return errors.New(`crv is not "P-256"`)
	}
	x, err := m.curveBytes("x")
	if err != nil {
		return err
	}
	y, err := m.curveBytes("y")
	if err != nil {
		return err
	}
	point := append(append([]byte{4}, x...), y...)
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
	if err != nil {
		return errors.New("x and y are no point of the curve")
	}
	k.public = public
	k.published = publicJWK{"crv": crv, "x": encode(x), "y": encode(y)}
	if !m.has("d") {
		return nil
	}
	d, err := m.curveBytes("d")
	if err != nil {
		return err
	}
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), d)
	if err != nil {
		return errors.New("d is out of range")
	}
	if !public.Equal(private.Public()) {
		return errMismatch
	}
	k.private = private
	return nil
}

// parseRSA reads a key of RFC 7518 §6.3. Of a private key it wants p and q
// beside d; what can be computed from them (dp, dq, qi) is not read.
func parseRSA(m object, k *key) error {
	n, err := m.integer("n")
	if err != nil {
		return err
	}
	if bits := n.BitLen(); bits < minRSABits || bits > maxRSABits {
		return fmt.Errorf("n is not %d to %d bits", minRSABits, maxRSABits)
	}
	e, err := m.integer("e")
	if err != nil {
		return err
	}
	if e.BitLen() > 31 || e.Int64() < 3 || e.Bit(0) == 0 {
		return errors.New("e is not an odd number from 3 to 2^31-1")
	}
	public := &rsa.PublicKey{N: n, E: int(e.Int64())}
	k.public = public
	k.published = publicJWK{"n": encode(n.Bytes()), "e": encode(e.Bytes())}
	if !m.has("d") {
		return nil
	}
	if m.has("oth") {
		return errors.New("more than two primes")
	}
	var parts [3]*big.Int
	for i, name := range []string{"d", "p", "q"} {
		if parts[i], err = m.integer(name); err != nil {
			return err
		}
	}
	private := &rsa.PrivateKey{PublicKey: *public, D: parts[0], Primes: parts[1:]}
	// Validate's own words are not passed on: they are not ours to keep free
	// of key material.
	if private.Validate() != nil {
		return errMismatch
	}
	private.Precompute()
	k.private = private
	return nil
}

// parseSecret reads a key of RFC 7518 §6.4.
func parseSecret(m object, k *key) error {
	secret, err := m.bytes("k")
	if err != nil {
		return err
	}
	if len(secret) < minSecretSize {
		return fmt.Errorf("k is shorter than %d bytes", minSecretSize)
	}
	k.private, k.public = secret, secret
	return nil
}
