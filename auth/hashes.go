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

var bcryptForm = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// parseHash reads a stored hash. The error is ErrBadHash.
func parseHash(hash string) (storedHash, error) {
	switch {
	case len(hash) > maxHashBytes:
		return nil, ErrBadHash
	case strings.HasPrefix(hash, "$argon2id$"):
		return parseArgon2(hash)
	case strings.HasPrefix(hash, "$2"):
		return parseBcrypt(hash)
	case strings.HasPrefix(hash, "pbkdf2:sha256:"), strings.HasPrefix(hash, "scrypt:"):
		return parseWerkzeug(hash)
	}
	return nil, ErrBadHash
}

// parseArgon2 reads a PHC string with exactly the parameters, in exactly the
// order, that argon2's own encoding has.
func parseArgon2(hash string) (storedHash, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return nil, ErrBadHash
	}
	costs := strings.Split(parts[3], ",")
	if len(costs) != 3 {
		return nil, ErrBadHash
	}
	var values [3]int
	for i, name := range []string{"m=", "t=", "p="} {
		text, named := strings.CutPrefix(costs[i], name)
		n, ok := decimal(text, maxMemoryKiB)
		if !named || !ok {
			return nil, ErrBadHash
		}
		values[i] = n
	}
	if values[2] > maxArgon2Threads {
		return nil, ErrBadHash
	}
	h := argon2Hash{params: Argon2Params{
		MemoryKiB: uint32(values[0]), Time: uint32(values[1]), Threads: uint8(values[2]),
	}}
	if h.params.Validate() != nil {
		return nil, ErrBadHash
	}
	var saltErr, sumErr error
	encoding := base64.RawStdEncoding.Strict()
	h.salt, saltErr = encoding.DecodeString(parts[4])
	h.sum, sumErr = encoding.DecodeString(parts[5])
	if saltErr != nil || sumErr != nil || strings.ContainsAny(hash, "\r\n") ||
		len(h.salt) < 8 || len(h.salt) > 64 || len(h.sum) < 16 || len(h.sum) > 64 {
		return nil, ErrBadHash
	}
	return h, nil
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

// parseWerkzeug reads method$salt$hex, where the salt is used as it stands.
func parseWerkzeug(hash string) (storedHash, error) {
	parts := strings.Split(hash, "$")
	if len(parts) != 3 || parts[1] == "" {
		return nil, ErrBadHash
	}
	sum, err := hex.DecodeString(parts[2])
	if err != nil {
		return nil, ErrBadHash
	}
	method := strings.Split(parts[0], ":")
	if method[0] == "pbkdf2" {
		rounds, ok := decimal(method[len(method)-1], maxPBKDF2Rounds)
		if len(method) != 3 || !ok || len(sum) != sha256.Size {
			return nil, ErrBadHash
		}
		return pbkdf2Hash{rounds: rounds, salt: parts[1], sum: sum}, nil
	}
	if len(method) != 4 || len(sum) != 64 {
		return nil, ErrBadHash
	}
	n, nOK := decimal(method[1], maxMemoryKiB<<10/128)
	r, rOK := decimal(method[2], 64)
	p, pOK := decimal(method[3], 64)
	if !nOK || !rOK || !pOK || n < 2 || bits.OnesCount(uint(n)) != 1 ||
		128*n*r > maxMemoryKiB<<10 || 128*n*r*p > maxScryptWork {
		return nil, ErrBadHash
	}
	return scryptHash{n: n, r: r, p: p, salt: parts[1], sum: sum}, nil
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
