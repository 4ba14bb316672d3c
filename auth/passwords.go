package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"
)

const (
	// longestQueue is how many callers Enter lets wait, by the time that those take who
	// came before them.
	longestQueue = 10 * time.Second
	// passwordWait is how long the others wait at the most, and at the least half of
	// that: who asks again at once is kept from it, and those who came together and
	// were turned away do not come back together.
	passwordWait = time.Second
	// placesEach is how many callers may be inside for each hasher: while one has
	// its password hashed, the next ones do what comes before and after that.
	placesEach = 4
	// longestTurn bounds what those are told who are turned away.
	longestTurn = 10 * time.Second

	saltBytes = 16
	keyBytes  = 32
)

// Argon2Params are the cost of an argon2id hash (RFC 9106 §3.1).
type Argon2Params struct {
	MemoryKiB uint32
	Time      uint32
	Threads   uint8
}

// Validate returns an error if a hash of these parameters could not be
// verified again: they have to be within what this package will spend on one.
func (p Argon2Params) Validate() error {
	switch {
	case p.Threads < 1 || p.Threads > maxArgon2Threads:
		return fmt.Errorf("auth: argon2id threads are not 1 to %d", maxArgon2Threads)
	case p.Time < 1 || p.Time > maxArgon2Time:
		return fmt.Errorf("auth: argon2id time is not 1 to %d", maxArgon2Time)
	case p.MemoryKiB < 8*uint32(p.Threads) || p.MemoryKiB > maxMemoryKiB:
		return fmt.Errorf("auth: argon2id memory is not 8 KiB a thread to %d KiB", maxMemoryKiB)
	}
	return nil
}

// A HashJob is a password, and the stored hash that it is to be compared with, or
// the cost of the argon2id hash that it is to be given where Hash is empty.
type HashJob struct {
	Password string
	Hash     string
	Params   Argon2Params
}

// A HashResult is what became of a job: whether the password matches the hash,
// or the hash that was made.
type HashResult struct {
	Matches bool
	Hash    string
}

// A Hasher does a job. It is given one at a time.
type Hasher func(HashJob) HashResult

// Do is the Hasher that every other one has to agree with: it does the job where
// it is called. A stored hash that cannot be read matches nothing.
func (j HashJob) Do() HashResult {
	if j.Hash != "" {
		stored, err := parseHash(j.Hash)
		return HashResult{Matches: err == nil && stored.matches(j.Password)}
	}
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails
	sum := argon2.IDKey([]byte(j.Password), salt, j.Params.Time, j.Params.MemoryKiB, j.Params.Threads, keyBytes)
	return HashResult{Hash: fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		j.Params.MemoryKiB, j.Params.Time, j.Params.Threads,
		base64.RawStdEncoding.EncodeToString(salt), base64.RawStdEncoding.EncodeToString(sum))}
}

// Passwords hashes and verifies passwords with a bounded number of hashers: each
// hash takes tens of milliseconds of a core and tens of megabytes, and logins
// must not take them from the replies that run. It is safe for concurrent use.
//
// Its methods wait for a hasher until ctx ends, and then return its error. A hash
// that was begun is finished. Who serves strangers has them [Passwords.Enter]
// first, so that few are let that far at once.
type Passwords struct {
	params  Argon2Params
	hashers chan Hasher
	places  chan struct{} // as full as there are callers inside
	waiting atomic.Int64  // callers who wait for a place, or for a hasher
	took    atomic.Int64  // how long a hash takes in nanoseconds, as a mean over the last few; at first a guess

	mu    sync.Mutex
	turns time.Time // when there is a turn again that nobody was told to come for
}

// A PasswordLoad is how busy a pool is.
type PasswordLoad struct {
	Hashers int // that there are
	Busy    int // of them
	Waiting int // callers for whom none is free, or whom Enter lets wait
}

// Load says how busy the pool is.
func (p *Passwords) Load() PasswordLoad {
	return PasswordLoad{Hashers: cap(p.hashers), Busy: cap(p.hashers) - len(p.hashers), Waiting: int(p.waiting.Load())}
}

// NewPasswords returns a pool that makes argon2id hashes of the given cost, so
// many at once, in this process. It panics if params are not valid or workers
// are none.
func NewPasswords(params Argon2Params, workers int) *Passwords {
	return NewPasswordPool(params, slices.Repeat([]Hasher{HashJob.Do}, workers))
}

// NewPasswordPool returns a pool of these hashers, which makes argon2id hashes of
// the given cost. It panics if params are not valid or there is no hasher.
func NewPasswordPool(params Argon2Params, hashers []Hasher) *Passwords {
	if err := params.Validate(); err != nil {
		panic(err)
	}
	if len(hashers) == 0 {
		panic("auth: passwords need a hasher")
	}
	p := &Passwords{
		params: params, hashers: make(chan Hasher, len(hashers)),
		places: make(chan struct{}, placesEach*len(hashers)),
	}
	p.took.Store(int64(50 * time.Millisecond))
	for _, h := range hashers {
		p.hashers <- h
	}
	return p
}

// Enter waits until the caller is one of few who need a password hashed, and is to
// be called before anything is done for it: what a hundred logins do before their
// hashes, all at once, is felt by the replies that run, as the hashes are. leave
// must be called, once.
//
// The caller waits as long as that takes where it should be at most 10 s. Otherwise
// it is returned a *Busy after half a second to a second. When ctx ends before, its
// error.
func (p *Passwords) Enter(ctx context.Context) (leave func(), err error) {
	before := p.waiting.Add(1)
	defer p.waiting.Add(-1)
	wait := passwordWait/2 + mathrand.N(passwordWait/2) //nolint:gosec // nothing is guarded by it
	if time.Duration(before)*p.each() <= longestQueue {
		wait = 2 * longestQueue // it may become slower
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case p.places <- struct{}{}:
		return func() { <-p.places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, &Busy{p.turn()}
	}
}

// turn gives those who are turned away a turn each, one behind the other as fast as
// there are hashes made, so that no more of them come back than can be served.
// Asking in vain is most of what many cost: it is felt where the hashes are not.
func (p *Passwords) turn() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.turns.Before(now) {
		p.turns = now
	}
	if p.turns.Sub(now) > longestTurn {
		return longestTurn/2 + mathrand.N(longestTurn/2) //nolint:gosec // nothing is guarded by it
	}
	// A little too fast: some do not come back.
	p.turns = p.turns.Add(p.each() * 4 / 5)
	return min(p.turns.Sub(now), longestTurn)
}

// Hash returns the argon2id hash of a password as a PHC string with a random
// salt of its own.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	done, err := p.do(ctx, HashJob{Password: password, Params: p.params})
	return done.Hash, err
}

// Verify reports whether password is the one behind hash: an argon2id PHC
// string, a bcrypt hash ($2a$, $2b$, $2y$), or Werkzeug's pbkdf2:sha256 or
// scrypt. rehash says that the password is right and its hash should be
// replaced by one of [Passwords.Hash]: it is of another kind or cost.
//
// A hash that is none of these, or would cost more than this package spends,
// is ErrBadHash; it takes as long as a wrong password, so that such an account
// does not stand out.
//
// bcrypt sees 72 bytes of a password. The services that made those hashes
// compared these alone, so they are compared alone here, and the users keep
// their passwords; the hash that replaces it is of the whole password.
//
// A password with a NUL is never right: bcrypt and HMAC, which PBKDF2 and
// scrypt are made of, cannot tell a NUL at its end from nothing.
func (p *Passwords) Verify(ctx context.Context, hash, password string) (ok, rehash bool, err error) {
	stored, err := parseHash(hash)
	if err != nil {
		return false, false, errors.Join(err, p.VerifyNothing(ctx, password))
	}
	done, err := p.do(ctx, HashJob{Password: password, Hash: hash})
	if err != nil {
		return false, false, err
	}
	if !done.Matches || strings.Contains(password, "\x00") {
		return false, false, nil
	}
	a, current := stored.(argon2Hash)
	current = current && a.params == p.params && len(a.salt) >= saltBytes && len(a.sum) == keyBytes
	return true, !current, nil
}

// VerifyNothing spends what Verify spends on a hash of the current parameters,
// for an address that nobody has.
func (p *Passwords) VerifyNothing(ctx context.Context, password string) error {
	_, err := p.do(ctx, HashJob{Password: password, Params: p.params})
	return err
}

// do has a hasher do the job, once one is free.
func (p *Passwords) do(ctx context.Context, j HashJob) (HashResult, error) {
	if err := ctx.Err(); err != nil {
		return HashResult{}, err
	}
	h, err := p.hasher(ctx)
	if err != nil {
		return HashResult{}, err
	}
	defer func() { p.hashers <- h }()
	began := time.Now()
	done := h(j)
	p.note(time.Since(began))
	return done, nil
}

// each is how long it takes from one hash to the next, as a mean over the last few.
func (p *Passwords) each() time.Duration {
	return time.Duration(p.took.Load()) / time.Duration(cap(p.hashers))
}

// note counts how long a hash took. One that is lost among others at the same moment
// makes no difference.
func (p *Passwords) note(took time.Duration) {
	mean := p.took.Load()
	p.took.Store(mean + (int64(took)-mean)/8)
}

// hasher waits for a hasher, which is to be given back.
func (p *Passwords) hasher(ctx context.Context) (Hasher, error) {
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	select {
	case h := <-p.hashers:
		return h, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
