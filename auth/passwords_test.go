package auth_test

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"parley/auth"
)

// cheap is a cost for tests that hash.
var cheap = auth.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1}

const greeting = "Grüße aus Köln"

// hashesOfGreeting were made by other implementations: argon2id by Python's
// cryptography 48, bcrypt by libxcrypt and, where the name says so, by Python's
// bcrypt 3.2.2, the others by Werkzeug 3.1.8. Python's bcrypt and Werkzeug
// verify all of theirs.
var hashesOfGreeting = map[string]string{
	"argon2id, 19 MiB":             "$argon2id$v=19$m=19456,t=2,p=1$a3E5WnQzdkJuTTF4Unc3TA$VbXy1Qkk3D0qewyVMWQ6Jk1dN4nVkh7lwSkyZG3BJtI",
	"argon2id, four lanes":         "$argon2id$v=19$m=65536,t=3,p=4$a3E5WnQzdkJuTTF4Unc3TA$KvMdkhgR4+Lj2jpfuFwPURvawviONVEwGSPrj18cnwo",
	"argon2id, 64 KiB":             "$argon2id$v=19$m=64,t=1,p=1$a3E5WnQzdkJuTTF4Unc3TA$brRKTRlQrweQxz4FwqalrqUKKzf8LmENPTOqNQexGkk",
	"bcrypt 2a":                    "$2a$05$k3vBnM1xRw7LkqZt9uQe4u0INE9EgEC9f7AUcRj24UCSkcCsYuqKu",
	"bcrypt 2b":                    "$2b$05$k3vBnM1xRw7LkqZt9uQe4u0INE9EgEC9f7AUcRj24UCSkcCsYuqKu",
	"bcrypt 2y":                    "$2y$05$k3vBnM1xRw7LkqZt9uQe4u0INE9EgEC9f7AUcRj24UCSkcCsYuqKu",
	"bcrypt 2a, Python's":          "$2a$05$NlfsjPw39AsUKi94dTMefO1s79fNN/6/IQWBPdwS3UNAuv/fYHzhW",
	"bcrypt 2b, Python's":          "$2b$06$jp3/cmBqxNMslSUdVhB6yuInmufuH73No2iLX/1I16IVb6d7VLnWG",
	"pbkdf2, a salt of Werkzeug 1": "pbkdf2:sha256:150000$IAvsSOE2$a2313aeb835ac5be0bb12ba007e1fe1d6f587725c72dc91c3bc966357b0256ca",
	"pbkdf2, 260,000 rounds":       "pbkdf2:sha256:260000$kq9Zt3vB$ab26e04c30a5a0c64e9897e3462db634143189fbdbaa2daff8a296e67e4b8fc2",
	"pbkdf2, 1,000 rounds":         "pbkdf2:sha256:1000$kq9Zt3vBnM1xRw7L$72ec27dd225bb3778fa09696663023b2f2c10bf95b7ea96b3dcaf04c61b97427",
	"scrypt, Werkzeug's default":   "scrypt:32768:8:1$kq9Zt3vBnM1xRw7L$e43176c64a3ee0c857435a204d13639fc8ed521c48192bfa684f12abb39d4be2354343e191a3698c905c42380fbddce6f3789f1393c4b6710c487657900d1f10",
	"scrypt, two blocks":           "scrypt:1024:8:2$kq9Zt3vBnM1xRw7L$5501363fa9e2b3f77c80315d242021cfea86eb97cec7370c8531fa6116e8028f1dcea53a9546c519cd08d073d32d4ecd0a636d0ce05db6c67f0074186279efbe",
}

func TestVerifyTakesHashesOfOtherImplementations(t *testing.T) {
	t.Parallel()
	passwords := auth.NewPasswords(cheap, 1)
	for name, hash := range hashesOfGreeting {
		t.Run(name, func(t *testing.T) {
			ok, rehash, err := passwords.Verify(t.Context(), hash, greeting)
			if wantRehash := name != "argon2id, 64 KiB"; !ok || rehash != wantRehash || err != nil {
				t.Errorf("got %v, %v, %v for the password, want true, %v", ok, rehash, err, wantRehash)
			}
			for _, wrong := range []string{strings.ToLower(greeting), greeting + "\x00"} {
				ok, rehash, err := passwords.Verify(t.Context(), hash, wrong)
				if ok || rehash || err != nil {
					t.Errorf("got %v, %v, %v for %q", ok, rehash, err, wrong)
				}
			}
		})
	}
}

// The vectors are those of libxcrypt, of Python's bcrypt 3.2.2 (which cut the
// password itself), and a published one of OpenBSD's bcrypt.
func TestVerifyTreatsBcryptAsTheOldServicesDid(t *testing.T) {
	t.Parallel()
	passwords := auth.NewPasswords(cheap, 1)
	x72 := "$2b$05$k3vBnM1xRw7LkqZt9uQe4u7XTkGkABscNiV3As5kkCnX91VpVuKiO"
	for name, c := range map[string]struct {
		hash, password string
		want           bool
	}{
		"the published vector":               {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U", true},
		"72 bytes":                           {x72, strings.Repeat("x", 72), true},
		"71 bytes of 72":                     {x72, strings.Repeat("x", 71), false},
		"more than the 72 bytes it compares": {x72, strings.Repeat("x", 72) + "and more", true},
		"74 bytes, hashed by Python":         {"$2b$05$scTWNevvKt6eQ7aF5yMLJebRPiCiALlDfYIYCJBk8b11P.EmDZn/.", strings.Repeat("x", 72) + "yz", true},
		"a NUL behind the 72 bytes":          {x72, strings.Repeat("x", 72) + "\x00", false},
		"a NUL as bcrypt's own end":          {"$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW", "U*U\x00U*U", false},
	} {
		got, rehash, err := passwords.Verify(t.Context(), c.hash, c.password)
		if got != c.want || rehash != c.want || err != nil {
			t.Errorf("%s: got %v, %v, %v; want %v", name, got, rehash, err, c.want)
		}
	}
}

func TestHashIsReadBackAndNeverTheSame(t *testing.T) {
	t.Parallel()
	passwords := auth.NewPasswords(cheap, 2)
	long := strings.Repeat("x", 1023)
	seen := make(map[string]bool)
	for _, password := range []string{greeting, greeting, long + "a", ""} {
		hash, err := passwords.Hash(t.Context(), password)
		if err != nil {
			t.Fatal(err)
		}
		form := regexp.MustCompile(`^\$argon2id\$v=19\$m=64,t=1,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$`)
		if !form.MatchString(hash) || seen[hash] {
			t.Errorf("got %q", hash)
		}
		seen[hash] = true
		if ok, rehash, err := passwords.Verify(t.Context(), hash, password); !ok || rehash || err != nil {
			t.Errorf("got %v, %v, %v", ok, rehash, err)
		}
		if ok, _, err := passwords.Verify(t.Context(), hash, long+"b"); ok || err != nil {
			t.Errorf("got %v, %v for another password", ok, err)
		}
	}
}

func TestVerifyRefusesHashesItCannotOrWillNotCheck(t *testing.T) {
	t.Parallel()
	argon := hashesOfGreeting["argon2id, 64 KiB"]
	bcrypt := hashesOfGreeting["bcrypt 2b"]
	pbkdf2 := hashesOfGreeting["pbkdf2, 1,000 rounds"]
	scrypt := hashesOfGreeting["scrypt, two blocks"]
	change := func(hash, old, replacement string) string {
		if !strings.Contains(hash, old) {
			t.Fatalf("%s does not hold %s", hash, old)
		}
		return strings.Replace(hash, old, replacement, 1)
	}
	passwords := auth.NewPasswords(cheap, 2)
	for name, hash := range map[string]string{
		"nothing":                        "",
		"a plain password":               greeting,
		"a locked account":               "!",
		"argon2i":                        change(argon, "argon2id", "argon2i"),
		"argon2id of another version":    change(argon, "v=19", "v=16"),
		"argon2id without a version":     change(argon, "$v=19", ""),
		"argon2id in another order":      change(argon, "m=64,t=1", "t=1,m=64"),
		"argon2id with a leading zero":   change(argon, "m=64", "m=064"),
		"argon2id with a sign":           change(argon, "t=1", "t=+1"),
		"argon2id with more parameters":  change(argon, "p=1", "p=1,keyid=a"),
		"argon2id without passes":        change(argon, "t=1", "t=0"),
		"argon2id with many passes":      change(argon, "t=1", "t=33"),
		"argon2id without lanes":         change(argon, "p=1", "p=0"),
		"argon2id with 257 lanes":        change(argon, "p=1", "p=257"),
		"argon2id with too many lanes":   change(argon, "p=1", "p=17"),
		"argon2id with too little":       change(argon, "m=64", "m=7"),
		"argon2id with 4 TiB":            change(argon, "m=64", "m=4294967295"),
		"argon2id with 257 MiB":          change(argon, "m=64", "m=263168"),
		"argon2id with padding":          argon + "=",
		"argon2id with slack bits":       change(argon, "Unc3TA$", "Unc3TB$"),
		"argon2id with a line end":       argon + "\n",
		"argon2id with a line end in it": change(argon, "Unc3", "Un\nc3"),
		"argon2id with more behind":      argon + "$",
		"argon2id with a short salt":     change(argon, "a3E5WnQzdkJuTTF4Unc3TA", "a3E5"),
		"argon2id with a short sum":      argon[:strings.LastIndex(argon, "$")+9],
		"bcrypt 2x":                      change(bcrypt, "2b", "2x"),
		"bcrypt cut":                     bcrypt[:59],
		"bcrypt with more behind":        bcrypt + "a",
		"bcrypt with a line end":         bcrypt + "\n",
		"bcrypt of cost 17":              change(bcrypt, "$05$", "$17$"),
		"bcrypt of cost 3":               change(bcrypt, "$05$", "$03$"),
		"bcrypt of no cost":              change(bcrypt, "$05$", "$+5$"),
		"pbkdf2 of sha512":               change(pbkdf2, "sha256", "sha512"),
		"pbkdf2 without rounds":          change(pbkdf2, ":1000", ""),
		"pbkdf2 of no rounds":            change(pbkdf2, ":1000", ":0"),
		"pbkdf2 of too many rounds":      change(pbkdf2, ":1000", ":10000001"),
		"pbkdf2 without salt":            change(pbkdf2, "kq9Zt3vBnM1xRw7L", ""),
		"pbkdf2 cut":                     pbkdf2[:len(pbkdf2)-2],
		"pbkdf2 with more behind":        pbkdf2 + "00",
		"pbkdf2 that is not hex":         pbkdf2[:len(pbkdf2)-1] + "g",
		"pbkdf2 with a third part":       pbkdf2 + "$",
		"scrypt of an odd cost":          change(scrypt, "1024", "1023"),
		"scrypt of cost one":             change(scrypt, "1024", "1"),
		"scrypt of 512 MiB":              change(scrypt, "1024", "524288"),
		"scrypt of too much work":        change(scrypt, "1024:8:2", "131072:8:64"),
		"scrypt with an overflow":        change(scrypt, "1024:8", "9223372036854775807:8"),
		"scrypt without p":               change(scrypt, ":2$", "$"),
		"scrypt cut":                     scrypt[:len(scrypt)-2],
		"a hash without end":             "pbkdf2:sha256:1$" + strings.Repeat("s", 2000) + "$" + strings.Repeat("0", 64),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ok, rehash, err := passwords.Verify(t.Context(), hash, greeting)
			if ok || rehash || !errors.Is(err, auth.ErrBadHash) {
				t.Errorf("got %v, %v, %v", ok, rehash, err)
			}
			if err != nil && err.Error() != "auth: unusable password hash" {
				t.Errorf("the error says %q", err)
			}
		})
	}
}

// Who is turned away is told when to come back so that few come in vain: of three hundred
// who sign in at once a hasher keeps busy with one after the other, and most ask twice.
func TestWhoIsTurnedAwayGetsATurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const each, callers = 100 * time.Millisecond, 300
		passwords := auth.NewPasswordPool(cheap, []auth.Hasher{func(auth.HashJob) auth.HashResult {
			time.Sleep(each)
			return auth.HashResult{}
		}})
		hash := func() {
			if _, err := passwords.Hash(t.Context(), "correct horse"); err != nil {
				t.Error(err)
			}
		}
		var (
			all  sync.WaitGroup
			away atomic.Int64
		)
		began := time.Now()
		for range callers {
			all.Go(func() {
				for {
					leave, err := passwords.Enter(t.Context())
					if err == nil {
						hash()
						leave()
						return
					}
					var busy *auth.Busy
					if !errors.As(err, &busy) || !errors.Is(err, auth.ErrBusy) {
						t.Error(err)
						return
					}
					away.Add(1)
					time.Sleep(busy.After.Truncate(time.Second) + time.Second) // as Retry-After says it
				}
			})
		}
		all.Wait()
		if took := time.Since(began); took > callers*each*3/2 {
			t.Errorf("all were served after %v, want little more than %v", took, callers*each)
		}
		if n := away.Load(); n > 2*callers {
			t.Errorf("%d callers were turned away %d times", callers, n)
		}
		t.Logf("turned away %d times, all served after %v", away.Load(), time.Since(began))
	})
}

// Each hasher has places for four callers. Who finds none waits; who would wait for
// more than ten seconds, as a hash is taken to last 50 ms at first, is turned away after
// half a second to a second, so that not all who were come back together.
func TestAFullPoolIsBusyWithinASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		passwords := auth.NewPasswordPool(cheap, []auth.Hasher{auth.HashJob.Do, auth.HashJob.Do})
		var inside []func()
		for range 8 {
			leave, err := passwords.Enter(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			inside = append(inside, leave)
		}
		type turned struct {
			err   error
			after time.Duration
		}
		const waiting, n = 400, 450
		away := make(chan turned, n)
		for range n {
			go func() {
				began := time.Now()
				_, err := passwords.Enter(t.Context())
				away <- turned{err, time.Since(began)}
			}()
		}
		synctest.Wait()
		if got := passwords.Load(); got != (auth.PasswordLoad{Hashers: 2, Waiting: n}) {
			t.Errorf("the load is %+v, want %d who wait", got, n)
		}
		after := make(map[time.Duration]bool)
		for i := range n {
			got := <-away
			if i < n-waiting && got.after >= time.Second || got.after < time.Second/2 || got.after > 20*time.Second || !errors.Is(got.err, auth.ErrBusy) {
				t.Errorf("got %v after %v, want %v after half a second to a second", got.err, got.after, auth.ErrBusy)
			}
			if i >= n-waiting && got.after < 10*time.Second {
				t.Errorf("one who should not wait for 10 s is turned away after %v", got.after)
			}
			after[got.after] = true
		}
		if len(after) < (n-waiting)/2 {
			t.Errorf("%d callers were turned away at %d moments, want them apart", n-waiting, len(after))
		}

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		enter := func(ctx context.Context) {
			leave, err := passwords.Enter(ctx)
			if err == nil {
				inside = append(inside, leave)
			}
			done <- err
		}
		go enter(ctx)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v for a caller that left", err)
		}
		go enter(t.Context())
		synctest.Wait()
		inside[0]()
		if err := <-done; err != nil {
			t.Errorf("got %v for a caller that waited", err)
		}
		for _, leave := range inside[1:] {
			leave()
		}
		if got := passwords.Load(); got != (auth.PasswordLoad{Hashers: 2}) {
			t.Errorf("the load is %+v, want nobody inside", got)
		}
	})
}

// Who was let in waits for a hasher as long as that takes.
func TestAHasherIsWaitedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		passwords := auth.NewPasswords(cheap, 1)
		hash, err := passwords.Hash(t.Context(), greeting)
		if err != nil {
			t.Fatal(err)
		}
		for name, do := range map[string]func(context.Context) error{
			"Hash":          func(ctx context.Context) error { _, err := passwords.Hash(ctx, greeting); return err },
			"VerifyNothing": func(ctx context.Context) error { return passwords.VerifyNothing(ctx, greeting) },
			"Verify": func(ctx context.Context) error {
				ok, _, err := passwords.Verify(ctx, hash, greeting)
				if err == nil && !ok {
					return errors.New("the password is wrong")
				}
				return err
			},
		} {
			release := passwords.Occupy()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- do(ctx) }()
			synctest.Wait()
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v for a caller that left", name, err)
			}
			go func() { done <- do(t.Context()) }()
			time.Sleep(time.Minute)
			release()
			if err := <-done; err != nil {
				t.Errorf("%s: got %v for a caller that waited", name, err)
			}
			if err := do(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: got %v for a caller that is gone", name, err)
			}
		}
	})
}

func TestManyCallersShareFewWorkers(t *testing.T) {
	t.Parallel()
	passwords := auth.NewPasswords(cheap, 2)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			hash, err := passwords.Hash(t.Context(), greeting)
			if err != nil {
				t.Errorf("got %v", err)
				return
			}
			if ok, _, err := passwords.Verify(t.Context(), hash, greeting); !ok || err != nil {
				t.Errorf("got %v, %v", ok, err)
			}
		})
	}
	all.Wait()
}

func TestAHasherDoesOneJobAtATime(t *testing.T) {
	t.Parallel()
	var jobs sync.Map
	hashers := make([]auth.Hasher, 3)
	for i := range hashers {
		var working sync.Mutex
		hashers[i] = func(j auth.HashJob) auth.HashResult {
			if !working.TryLock() {
				t.Error("a hasher was given two jobs at once")
			}
			defer working.Unlock()
			n, _ := jobs.LoadOrStore(i, new(atomic.Int64))
			n.(*atomic.Int64).Add(1)
			return j.Do()
		}
	}
	passwords := auth.NewPasswordPool(cheap, hashers)
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() {
			hash, err := passwords.Hash(t.Context(), greeting)
			if err != nil {
				t.Errorf("got %v", err)
				return
			}
			if ok, rehash, err := passwords.Verify(t.Context(), hash, greeting); !ok || rehash || err != nil {
				t.Errorf("got %v, %v, %v", ok, rehash, err)
			}
		})
	}
	all.Wait()
	var done int64
	jobs.Range(func(_, n any) bool { done += n.(*atomic.Int64).Load(); return true })
	if done != 64 {
		t.Errorf("the hashers have done %d jobs, want 64", done)
	}
}

func TestAHasherThatPanicsIsNotLost(t *testing.T) {
	t.Parallel()
	first := true
	passwords := auth.NewPasswordPool(cheap, []auth.Hasher{func(j auth.HashJob) auth.HashResult {
		if first {
			first = false
			panic("out of memory")
		}
		return j.Do()
	}})
	func() {
		defer func() { _ = recover() }()
		_, _ = passwords.Hash(t.Context(), greeting)
	}()
	if hash, err := passwords.Hash(t.Context(), greeting); hash == "" || err != nil {
		t.Errorf("the next job: got %q, %v", hash, err)
	}
}

func TestAJobWithAHashThatCannotBeRead(t *testing.T) {
	t.Parallel()
	for _, hash := range []string{"!", "$2b$31$k3vBnM1xRw7LkqZt9uQe4u0INE9EgEC9f7AUcRj24UCSkcCsYuqKu"} {
		if got := (auth.HashJob{Password: greeting, Hash: hash}).Do(); got != (auth.HashResult{}) {
			t.Errorf("%s: got %+v", hash, got)
		}
	}
}

func TestParametersThatCouldNotBeReadBackAreRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		params auth.Argon2Params
		valid  bool
	}{
		"the default":         {auth.Argon2Params{MemoryKiB: 19456, Time: 2, Threads: 1}, true},
		"nothing":             {auth.Argon2Params{}, false},
		"no passes":           {auth.Argon2Params{MemoryKiB: 64, Threads: 1}, false},
		"no threads":          {auth.Argon2Params{MemoryKiB: 64, Time: 1}, false},
		"too little a thread": {auth.Argon2Params{MemoryKiB: 31, Time: 1, Threads: 4}, false},
		"too much":            {auth.Argon2Params{MemoryKiB: 1 << 20, Time: 1, Threads: 1}, false},
	} {
		if err := c.params.Validate(); (err == nil) != c.valid {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// The cost of a login is the same whether there is an account or not: compare
// the two.
func BenchmarkVerify(b *testing.B) {
	passwords := auth.NewPasswords(auth.Argon2Params{MemoryKiB: 19456, Time: 2, Threads: 1}, 1)
	b.Run("account", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if ok, _, err := passwords.Verify(b.Context(), hashesOfGreeting["argon2id, 19 MiB"], greeting); !ok || err != nil {
				b.Fatal(ok, err)
			}
		}
	})
	b.Run("nothing", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := passwords.VerifyNothing(b.Context(), greeting); err != nil {
				b.Fatal(err)
			}
		}
	})
}
