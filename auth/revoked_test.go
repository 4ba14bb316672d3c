package auth_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"parley/auth"
)

func TestRevoked(t *testing.T) {
	t.Parallel()
	type addition struct {
		sid  string
		user int64
		at   time.Time
	}
	token := auth.Identity{UserID: 7, SID: "S1", IssuedAt: issued}
	micro := time.Microsecond
	for name, c := range map[string]struct {
		add  []addition
		want bool
	}{
		"nothing was revoked":                         {nil, false},
		"the session":                                 {[]addition{{"S1", 0, issued.Add(micro)}}, true},
		"the session, by a clock behind":              {[]addition{{"S1", 0, issued.Add(-time.Hour)}}, true},
		"another session":                             {[]addition{{"S2", 0, issued.Add(time.Hour)}}, false},
		"another session of the user":                 {[]addition{{"S2", 7, issued.Add(time.Hour)}}, false},
		"the user, later":                             {[]addition{{"", 7, issued.Add(micro)}}, true},
		"the user, at that moment":                    {[]addition{{"", 7, issued}}, true},
		"the user, before this token, in its second":  {[]addition{{"", 7, issued.Add(-micro)}}, false},
		"another user":                                {[]addition{{"", 8, issued.Add(time.Hour)}}, false},
		"the user, and an earlier one read after it":  {[]addition{{"", 7, issued}, {"", 7, issued.Add(-micro)}}, true},
		"everybody, later":                            {[]addition{{"", 0, issued.Add(micro)}}, true},
		"everybody, before this token, in its second": {[]addition{{"", 0, issued.Add(-micro)}}, false},
		"everybody, and an earlier one read after it": {[]addition{{"", 0, issued}, {"", 0, issued.Add(-micro)}}, true},
	} {
		revoked := auth.NewRevoked(func() time.Time { return issued })
		for _, a := range c.add {
			revoked.Add(a.sid, a.user, a.at, a.at.Add(15*time.Minute))
		}
		if got := revoked.Has(token); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestRevokedForgetsWhatHasExpiredWhenItIsFull(t *testing.T) {
	t.Parallel()
	revoked := auth.NewRevoked(func() time.Time { return issued })
	for i := range auth.RevokedLimit {
		revoked.Add("old"+strconv.Itoa(i), 0, issued.Add(-time.Hour), issued.Add(-time.Minute))
	}
	revoked.Add("S1", 0, issued, issued.Add(time.Minute))
	if got := revoked.Held(); got != 1 {
		t.Errorf("got %d held, want 1", got)
	}
	if !revoked.Has(auth.Identity{UserID: 7, SID: "S1", IssuedAt: issued}) {
		t.Error("a revocation that holds was forgotten")
	}
	if revoked.Has(auth.Identity{UserID: 7, SID: "S2", IssuedAt: issued.Add(-2 * time.Hour)}) {
		t.Error("a token that nobody revoked is refused")
	}
}

func TestRevokedRefusesTooMuchRatherThanTooLittleWhenItIsFull(t *testing.T) {
	t.Parallel()
	revoked := auth.NewRevoked(func() time.Time { return issued })
	for i := range auth.RevokedLimit + 1 {
		revoked.Add("", int64(i+1), issued, issued.Add(time.Minute))
	}
	if got := revoked.Held(); got > auth.RevokedLimit {
		t.Errorf("got %d held, want at most %d", got, auth.RevokedLimit)
	}
	for user := range int64(auth.RevokedLimit) {
		if !revoked.Has(auth.Identity{UserID: user + 1, SID: "S", IssuedAt: issued}) {
			t.Fatalf("the tokens of user %d pass", user+1)
		}
	}
	if revoked.Has(auth.Identity{UserID: 1, SID: "S", IssuedAt: issued.Add(time.Microsecond)}) {
		t.Error("a later token is refused")
	}
}

func TestRevokedIsReadWhileItIsFed(t *testing.T) {
	t.Parallel()
	revoked := auth.NewRevoked(nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 1000 {
				sid := strconv.Itoa(i*1000 + j)
				revoked.Add(sid, 0, issued, issued.Add(time.Minute))
				if !revoked.Has(auth.Identity{SID: sid, IssuedAt: issued}) {
					t.Errorf("session %s passes", sid)
				}
			}
		})
	}
	all.Wait()
}

func TestRevokedIsStaleTwoSecondsAfterItsLastReading(t *testing.T) {
	t.Parallel()
	now := issued
	revoked := auth.NewRevoked(func() time.Time { return now })
	check := func(when string, want bool) {
		t.Helper()
		if got := revoked.Stale(); got != want {
			t.Errorf("%s: got stale %v, want %v", when, got, want)
		}
	}
	check("before any reading", true)
	revoked.Add("S1", 0, now, now.Add(time.Minute))
	check("with a revocation that came by itself", true)
	revoked.Fresh(now)
	check("at once", false)
	now = issued.Add(2 * time.Second)
	check("two seconds later", false)
	now = now.Add(time.Nanosecond)
	check("a moment after that", true)
	revoked.Fresh(issued.Add(time.Second))
	check("after a reading that took a second", false)
	revoked.Fresh(issued)
	check("after an older reading that ended late", false)
	now = issued.Add(3*time.Second + time.Nanosecond)
	check("two seconds after the latest was begun", true)
}
