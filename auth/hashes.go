package auth

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"math/bits"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"
)

// What one verification may cost. Stored hashes may come from elsewhere (an
// imported database), and one of them must not hold a core for minutes or take
// the memory of the process.
const (
	maxMemoryKiB     = 256 << 10
	maxArgon2Time    = 32
	maxArgon2Threads = 16
	maxBcryptCost    = 16
	maxPBKDF2Rounds  = 10_000_000
	maxScryptWork    = 16 * maxMemoryKiB << 10 // 128·N·r·p
	maxHashBytes     = 1024
	bcryptBytes      = 72
)

// storedHash is a password hash of one of the kinds that were ever stored.
type storedHash interface {
	matches(password string) bool
}

type (
	argon2Hash struct {
		params    Argon2Params
		salt, sum []byte
	}
	bcryptHash []byte
	pbkdf2Hash struct {
		rounds int
		salt   string
		sum    []byte
	}
	scryptHash struct {
		n, r, p int
		salt    string
		sum     []byte
	}
)

// How each kind is written. argon2id has exactly the parameters, in exactly the
// order, that argon2's own encoding has. Werkzeug writes method$salt$hex, and
// uses the salt as it stands.
var (
	argon2Form = regexp.MustCompile(`^\$argon2id\$v=19\$m=([0-9]+),t=([0-9]+),p=([0-9]+)\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$`)
	bcryptForm = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)
	pbkdf2Form = regexp.MustCompile(`^pbkdf2:sha256:([0-9]+)\$([^$]+)\$([0-9A-Fa-f]{64})$`)
	scryptForm = regexp.MustCompile(`^scrypt:([0-9]+):([0-9]+):([0-9]+)\$([^$]+)\$([0-9A-Fa-f]{128})$`)
)

// parseHash reads a stored hash. The error is ErrBadHash.
func parseHash(hash string) (storedHash, error) {
	switch {
	case len(hash) > maxHashBytes:
		return nil, ErrBadHash
	case strings.HasPrefix(hash, "$argon2id$"):
		return parseArgon2(hash)
	case strings.HasPrefix(hash, "$2"):
		return parseBcrypt(hash)
	case strings.HasPrefix(hash, "pbkdf2:"):
		return parsePBKDF2(hash)
	case strings.HasPrefix(hash, "scrypt:"):
		return parseScrypt(hash)
	}
	return nil, ErrBadHash
}

func parseArgon2(hash string) (storedHash, error) {
	fields := argon2Form.FindStringSubmatch(hash)
	if fields == nil {
		return nil, ErrBadHash
	}
	memory, memoryOK := decimal(fields[1], maxMemoryKiB)
	time, timeOK := decimal(fields[2], maxArgon2Time)
	threads, threadsOK := decimal(fields[3], maxArgon2Threads)
	if !memoryOK || !timeOK || !threadsOK {
		return nil, ErrBadHash
	}
	params := Argon2Params{MemoryKiB: uint32(memory), Time: uint32(time), Threads: uint8(threads)}
	if params.Validate() != nil {
		return nil, ErrBadHash
	}
	salt, saltErr := base64.RawStdEncoding.Strict().DecodeString(fields[4])
	sum, sumErr := base64.RawStdEncoding.Strict().DecodeString(fields[5])
	if saltErr != nil || sumErr != nil || len(salt) < 8 || len(salt) > 64 || len(sum) < 16 || len(sum) > 64 {
		return nil, ErrBadHash
	}
	return argon2Hash{params: params, salt: salt, sum: sum}, nil
}

func parseBcrypt(hash string) (storedHash, error) {
	if !bcryptForm.MatchString(hash) {
		return nil, ErrBadHash
	}
	if cost, err := bcrypt.Cost([]byte(hash)); err != nil || cost > maxBcryptCost {
		return nil, ErrBadHash
	}
	return bcryptHash(hash), nil
}

func parsePBKDF2(hash string) (storedHash, error) {
	fields := pbkdf2Form.FindStringSubmatch(hash)
	if fields == nil {
		return nil, ErrBadHash
	}
	rounds, ok := decimal(fields[1], maxPBKDF2Rounds)
	sum, err := hex.DecodeString(fields[3])
	if !ok || err != nil {
		return nil, ErrBadHash
	}
	return pbkdf2Hash{rounds: rounds, salt: fields[2], sum: sum}, nil
}

func parseScrypt(hash string) (storedHash, error) {
	fields := scryptForm.FindStringSubmatch(hash)
	if fields == nil {
		return nil, ErrBadHash
	}
	n, nOK := decimal(fields[1], maxMemoryKiB<<10/128)
	r, rOK := decimal(fields[2], 64)
	p, pOK := decimal(fields[3], 64)
	sum, err := hex.DecodeString(fields[5])
	if !nOK || !rOK || !pOK || err != nil {
		return nil, ErrBadHash
	}
	if n < 2 || bits.OnesCount(uint(n)) != 1 || 128*n*r > maxMemoryKiB<<10 || 128*n*r*p > maxScryptWork {
		return nil, ErrBadHash
	}
	return scryptHash{n: n, r: r, p: p, salt: fields[4], sum: sum}, nil
}

// decimal reads a number from 1 to limit as it is written canonically.
func decimal(s string, limit int) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 1 && n <= limit && strconv.Itoa(n) == s
}

func (h argon2Hash) matches(password string) bool {
	sum := argon2.IDKey([]byte(password), h.salt, h.params.Time, h.params.MemoryKiB, h.params.Threads, uint32(len(h.sum)))
	return subtle.ConstantTimeCompare(sum, h.sum) == 1
}

func (h bcryptHash) matches(password string) bool {
	seen := password[:min(len(password), bcryptBytes)]
	return bcrypt.CompareHashAndPassword(h, []byte(seen)) == nil
}

func (h pbkdf2Hash) matches(password string) bool {
	sum, err := pbkdf2.Key(sha256.New, password, []byte(h.salt), h.rounds, len(h.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, h.sum) == 1
}

func (h scryptHash) matches(password string) bool {
	sum, err := scrypt.Key([]byte(password), []byte(h.salt), h.n, h.r, h.p, len(h.sum))
	return err == nil && subtle.ConstantTimeCompare(sum, h.sum) == 1
}
