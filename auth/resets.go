package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
)

// resetBytes is how much chance a reset token holds.
const resetBytes = 32

// NewResetToken returns the secret of a link that resets a password: 256 bits
// of chance, in characters that a URL takes as they are.
func NewResetToken() string {
	token := make([]byte, resetBytes)
	rand.Read(token) // never fails
	return base64.RawURLEncoding.EncodeToString(token)
}

// HashResetToken returns what is stored of a reset token, and what a token that
// somebody presents is looked up by. A plain SHA-256 does: there is too much
// chance in a token for anybody to try them.
func HashResetToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
