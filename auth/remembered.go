package auth

import (
	"crypto/sha256"
	"sync"
	"time"
)

// rememberedTokens is how many verified tokens are remembered at the most:
// about 2 MiB.
const rememberedTokens = 8192

// remembered maps the hashes of verified access tokens to the callers that
// they speak for. It holds no token: a dump of the memory it takes opens
// nothing. It is safe for concurrent use.
//
// Entries live in two halves. Those in use move to the younger half; when
// that is full, the older half is dropped whole and the younger takes its
// place. So the bound is kept without lists or sweeps.
type remembered struct {
	mu     sync.Mutex
	half   int
	young  map[[sha256.Size]byte]Identity
	before map[[sha256.Size]byte]Identity
}

func newRemembered(size int) *remembered {
	return &remembered{half: max(size/2, 1), young: make(map[[sha256.Size]byte]Identity)}
}

// get returns the caller of a token that was verified and has not expired.
func (r *remembered) get(sum [sha256.Size]byte, now time.Time) (Identity, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id, young := r.young[sum]
	if !young {
		var found bool
		if id, found = r.before[sum]; !found {
			return Identity{}, false
		}
		delete(r.before, sum)
	}
	if !now.Before(id.ExpiresAt) {
		delete(r.young, sum)
		return Identity{}, false
	}
	if !young {
		r.add(sum, id)
	}
	return id, true
}

// put remembers a token that was verified.
func (r *remembered) put(sum [sha256.Size]byte, id Identity) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.before, sum)
	r.add(sum, id)
}

func (r *remembered) add(sum [sha256.Size]byte, id Identity) {
	if len(r.young) >= r.half {
		r.before, r.young = r.young, make(map[[sha256.Size]byte]Identity)
	}
	r.young[sum] = id
}
