package auth_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"parley/auth"
)

// caller is who the tokens of madeElsewhere speak for.
func caller() auth.Identity {
	return auth.Identity{UserID: 7, SID: "S1", Generation: 3, IssuedAt: issued, ExpiresAt: issued.Add(15 * time.Minute)}
}

func issueTicket(tb testing.TB, t *auth.Tokens, messageID int64) string {
	tb.Helper()
	ticket, _, err := t.IssueTicket(caller(), messageID)
	if err != nil {
		tb.Fatal(err)
	}
	return ticket
}

func TestATicketIsATokenOfTheProfile(t *testing.T) {
	t.Parallel()
	for _, alg := range []string{"EdDSA", "ES256", "RS256", "HS256"} {
		t.Run(alg, func(t *testing.T) {
			t.Parallel()
			// Ten minutes after the access token.
			tokens := tokensAt(t, alg, func() time.Time { return issued.Add(10 * time.Minute) })
			ticket, expiresIn, err := tokens.IssueTicket(caller(), 42)
			if err != nil || expiresIn != 900 {
				t.Fatalf("got a life of %d, %v; want 900", expiresIn, err)
			}
			kid := map[string]string{"EdDSA": "ed", "ES256": "ec", "RS256": "rs", "HS256": "hs"}[alg]
			header, claims := decoded(t, ticket, 0), decoded(t, ticket, 1)
			if diff := cmp.Diff(header, map[string]any{"alg": alg, "kid": kid, "typ": "stream-ticket+jwt"}); diff != "" {
				t.Errorf("header (-got +want):\n%s", diff)
			}
			want := map[string]any{
				"iss": "https://parley.example", "aud": "parley", "sub": "7", "sid": "S1", "gen": 3.0, "message_id": 42.0,
				"iat": 1795000000.0, "iat_us": 250000.0, "exp": 1795000600.0 + 900, "jti": claims["jti"],
			}
			if diff := cmp.Diff(claims, want); diff != "" {
				t.Errorf("claims (-got +want):\n%s", diff)
			}
			got, err := tokens.VerifyTicket(ticket)
			opens := auth.Ticket{Identity: caller(), MessageID: 42}
			opens.ExpiresAt = time.Unix(1795000600+900, 0).UTC()
			if err != nil || got != opens {
				t.Errorf("got %+v, %v; want %+v", got, err, opens)
			}
			if jti, _ := claims["jti"].(string); len(jti) < 20 || issueTicket(t, tokens, 42) == ticket {
				t.Errorf("jti is %q, want a random one", jti)
			}
		})
	}
}

func TestVerifyTicketRefusesWhatIsNone(t *testing.T) {
	t.Parallel()
	const header = `{"alg":"EdDSA","kid":"ed","typ":"stream-ticket+jwt"}`
	ticket := func(message string) string { return signed(header, with(t, `"gen":3`, `"gen":3`+message)) }
	good := ticket(`,"message_id":42`)
	tokens := tokens(t, "EdDSA")
	if got, err := tokens.VerifyTicket(good); err != nil || got.MessageID != 42 || got.UserID != 7 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, tt := range map[string]struct{ ticket, want string }{
		"nothing":                    {"", "header: no valid JSON"},
		"no message":                 {ticket(``), "no message"},
		"message 0":                  {ticket(`,"message_id":0`), "no message"},
		"a message below 0":          {ticket(`,"message_id":-1`), "malformed"},
		"a message named by a word":  {ticket(`,"message_id":"42"`), "malformed"},
		"two messages":               {ticket(`,"message_id":42,"message_id":43`), "malformed"},
		"a message beyond 64 bits":   {ticket(`,"message_id":9223372036854775808`), "malformed"},
		"typ of an access token":     {signed(goodHeader, with(t, `"gen":3`, `"message_id":42`)), "another typ"},
		"typ in another case":        {signed(`{"alg":"EdDSA","kid":"ed","typ":"Stream-Ticket+JWT"}`, goodClaims), "another typ"},
		"past":                       {signed(header, with(t, `1795000900`, `1795000000`)), "expired"},
		"a signature of another key": {good[:len(good)-4] + "AAAA", "signature"},
	} {
		got, err := tokens.VerifyTicket(tt.ticket)
		if err == nil || err.Error() != "auth: invalid token: "+tt.want || got != (auth.Ticket{}) {
			t.Errorf("%s: got %+v, %v; want %q", name, got, err, tt.want)
		}
		if errors.Is(err, auth.ErrExpiredToken) != (tt.want == "expired") {
			t.Errorf("%s: %v is of the wrong kind", name, err)
		}
	}
}

// A revocation is kept for the life of an access token: a ticket that lived
// longer would open its stream again afterwards.
func TestATicketLivesNoLongerThanAnAccessToken(t *testing.T) {
	t.Parallel()
	for accessTTL, want := range map[time.Duration]int64{time.Minute: 60, 15 * time.Minute: 900, 24 * time.Hour: 900} {
		tokens := auth.NewTokens(ring(t, keySet(t, "EdDSA")), auth.TokenConfig{
			Issuer: "i", Audience: "a", AccessTTL: accessTTL, RefreshIdleTTL: time.Hour, RefreshMaxTTL: time.Hour,
			Now: func() time.Time { return issued },
		})
		ticket, got, err := tokens.IssueTicket(caller(), 42)
		if err != nil || got != want {
			t.Fatalf("%v: got %d, %v; want %d", accessTTL, got, err, want)
		}
		if exp := decoded(t, ticket, 1)["exp"]; exp != 1795000000.0+float64(want) {
			t.Errorf("%v: exp is %v", accessTTL, exp)
		}
	}
}

// The replica that makes a ticket may learn of a revocation later.
func TestATicketIsRevokedWithTheTokenItWasMadeWith(t *testing.T) {
	t.Parallel()
	tokens := tokensAt(t, "EdDSA", func() time.Time { return issued.Add(2 * time.Second) })
	ticket, err := tokens.VerifyTicket(issueTicket(t, tokens, 42))
	if err != nil {
		t.Fatal(err)
	}
	at := issued.Add(time.Second)
	for name, tt := range map[string]struct {
		sid    string
		userID int64
		want   bool
	}{
		"its session":     {"S1", 0, true},
		"another session": {"S2", 0, false},
		"its user":        {"", 7, true},
		"another user":    {"", 8, false},
		"everybody":       {"", 0, true},
	} {
		revoked := auth.NewRevoked(func() time.Time { return issued })
		revoked.Add(tt.sid, tt.userID, at, at.Add(15*time.Minute))
		if got := revoked.Has(ticket.Identity); got != tt.want {
			t.Errorf("%s is revoked: got %v, want %v", name, got, tt.want)
		}
	}
}

func TestIssueTicketAsksForACallerAndAMessage(t *testing.T) {
	t.Parallel()
	tokens := tokens(t, "EdDSA")
	for name, tt := range map[string]struct {
		change    func(*auth.Identity)
		messageID int64
	}{
		"no user":      {func(id *auth.Identity) { id.UserID = 0 }, 42},
		"no session":   {func(id *auth.Identity) { id.SID = "" }, 42},
		"no time":      {func(id *auth.Identity) { id.IssuedAt = time.Time{} }, 42},
		"no message":   {func(*auth.Identity) {}, 0},
		"a message -1": {func(*auth.Identity) {}, -1},
	} {
		id := caller()
		tt.change(&id)
		if got, life, err := tokens.IssueTicket(id, tt.messageID); got != "" || life != 0 || err == nil {
			t.Errorf("%s: got %q, %d, %v", name, got, life, err)
		}
	}
	// An access token made elsewhere need not name its generation.
	id := caller()
	id.Generation = 0
	ticket, _, err := tokens.IssueTicket(id, 42)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := tokens.VerifyTicket(ticket); err != nil || got.Generation != 0 {
		t.Errorf("without a generation: got %+v, %v", got, err)
	}
}
