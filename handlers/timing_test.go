package handlers_test

import (
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"parley/auth"
	"parley/handlers"
	"parley/models"
	"parley/models/modelstest"
)

// medians are those of how long each call takes, made in turn.
func medians(rounds int, calls map[string]func()) map[string]time.Duration {
	took := make(map[string][]time.Duration)
	for range rounds {
		for name, call := range calls {
			began := time.Now()
			call()
			took[name] = append(took[name], time.Since(began))
		}
	}
	out := make(map[string]time.Duration)
	for name, times := range took {
		slices.Sort(times)
		out[name] = times[len(times)/2]
	}
	return out
}

// alike fails if one median is more than three times another: machines that run
// tests do other things too, and a hash that is not made shows twentyfold.
func alike(t *testing.T, got map[string]time.Duration) {
	t.Helper()
	var all []time.Duration
	for _, d := range got {
		all = append(all, d)
	}
	if least, most := slices.Min(all), slices.Max(all); most > 3*least {
		t.Errorf("medians are %v, want them alike", got)
	}
}

// What is done for an address without an account takes the time that it takes
// for one with an account, also before anything waits for the time to be full.
func TestTheTimeOfALogin(t *testing.T) {
	db := modelstest.New(t, models.SQLite)
	s := start(t, db, says(), func(c *handlers.Config) {
		c.Passwords = auth.NewPasswords(auth.Argon2Params{MemoryKiB: 8 << 10, Time: 2, Threads: 1}, 1)
		c.RefusalTime = time.Nanosecond
	})
	s.signup("ann@example.com")
	alike(t, medians(9, map[string]func(){
		"a known address":    func() { s.login("ann@example.com", "a wrong one", nil) },
		"an unknown address": func() { s.login("nobody@example.com", "a wrong one", nil) },
	}))
}

// Hashes that other services made take another time. That does not show, since a
// refusal comes after a time of its own.
func TestTheTimeOfARefusal(t *testing.T) {
	db := modelstest.New(t, models.SQLite)
	s := start(t, db, says(), func(c *handlers.Config) { c.RefusalTime = 300 * time.Millisecond })
	s.signup("ann@example.com")
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 6)
	if err != nil {
		t.Fatal(err)
	}
	old := models.User{Email: "old@example.com", UserName: "old", PasswordHash: string(hash)}
	if err := db.CreateUser(t.Context(), &old, &models.DeviceSession{SID: "x", ExpiresAt: time.Now().Add(time.Hour)}, models.By{}); err != nil {
		t.Fatal(err)
	}
	alike(t, medians(5, map[string]func(){
		"a known address":        func() { s.login("ann@example.com", "a wrong one", nil) },
		"an account of before":   func() { s.login("old@example.com", "a wrong one", nil) },
		"an unknown address":     func() { s.login("nobody@example.com", "a wrong one", nil) },
		"no address":             func() { s.login("nobody", "a wrong one", nil) },
		"a reset for a known":    func() { s.askForReset("ann@example.com", nil) },
		"a reset for a nobody":   func() { s.askForReset("nobody@example.com", nil) },
		"a reset for no address": func() { s.askForReset("nobody", nil) },
	}))
}
