package handlers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"parley/auth"
	"parley/models"
)

// A policy is the name under which clients are told of a limit (RateLimit
// header fields for HTTP, draft-ietf-httpapi-ratelimit-headers-11).
type policy string

const (
	loginPolicy    policy = "login" // of everything that tries a password
	signupPolicy   policy = "signup"
	resetPolicy    policy = "reset-password-request"
	messagesPolicy policy = "messages"
	tokensPolicy   policy = "tokens" // of a day: no limit of requests, and told only to who has reached it
)

// policies are what clients are told of each: the value of RateLimit-Policy. Where
// several limits stand behind one, it is that which an honest client meets
// first: what is left of those that are shared with strangers is not for
// everybody to see. One without a limit is not in it.
func (l Limits) policies() map[policy]string {
	told := make(map[policy]string)
	for p, behind := range map[policy][]auth.Limit{
		loginPolicy:    {l.LoginAccountNetwork, l.LoginAccount, l.LoginNetwork},
		signupPolicy:   {l.Signups},
		resetPolicy:    {l.ResetRequests},
		messagesPolicy: {l.Messages},
	} {
		first := slices.IndexFunc(behind, func(l auth.Limit) bool { return l.Quota != 0 })
		if first >= 0 {
			told[p] = fmt.Sprintf(`"%s";q=%d;w=%d`, p, behind[first].Quota, seconds(behind[first].Window))
		}
	}
	return told
}

// tell says what is left under a policy, and for how long that has to do. Who
// divides the one by the other is never led to more than the policy gives.
func (p policy) tell(h http.Header, remaining int64, window time.Duration) {
	h.Set("RateLimit", fmt.Sprintf(`"%s";r=%d;t=%d`, p, remaining, seconds(window)))
}

// exhaust tells of a policy, beside those of the route, that its quota of a day is
// used up for so many seconds.
func (p policy) exhaust(h http.Header, quota int64, wait int) {
	h.Add("RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;w=86400`, p, quota))
	h.Add("RateLimit", fmt.Sprintf(`"%s";r=0;t=%d`, p, wait))
}

// effective is for how long what remains of l has to do: until all of it is
// there again, and where it is, for a whole window.
func effective(l models.Limit, reset time.Duration) time.Duration {
	if reset <= 0 {
		return l.Window
	}
	return reset
}

// seconds is d in whole seconds, rounded up.
func seconds(d time.Duration) int64 { return int64((d + time.Second - 1) / time.Second) }

// retryIn is what Retry-After says of d: a second at the least.
func retryIn(d time.Duration) int { return int(max(seconds(d), 1)) }

// limitOn is l for what it is about, which nobody can read out of the database.
// Each part is quoted: what a client sent is never taken for two parts.
func limitOn(l auth.Limit, about ...string) models.Limit {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", about))
	return models.Limit{Key: hex.EncodeToString(sum[:]), Quota: l.Quota, Window: l.Window}
}

// limitOnNetwork is l for all that come from one network. There is none for a
// client that is in no network: see auth.Network.
func limitOnNetwork(l auth.Limit, kind string, network netip.Prefix) models.Limit {
	if !network.IsValid() {
		return models.Limit{}
	}
	return limitOn(l, kind, network.String())
}

// network is where r comes from.
func network(r *http.Request) netip.Prefix { return auth.Network(infoOf(r).client) }

// A tally is what came of counting one request under some limits.
type tally struct {
	policy  policy
	limits  []models.Limit // the first is the one that clients are told of
	counted map[string]models.Counted
}

// count counts a request under limits, in one statement. Those without a quota
// are none, and if all are, the database is not asked.
func (s *server) count(ctx context.Context, p policy, limits ...models.Limit) (tally, error) {
	t := tally{policy: p, counted: make(map[string]models.Counted)}
	for _, l := range limits {
		if l.Quota != 0 {
			t.limits = append(t.limits, l)
		}
	}
	if len(t.limits) == 0 {
		return t, nil
	}
	counted, err := s.db.Count(ctx, t.limits)
	for _, c := range counted {
		t.counted[c.Key] = c
	}
	return t, err
}

// has reports whether the request was counted under l.
func (t tally) has(l models.Limit) bool { return slices.Contains(t.limits, l) }

// refuses reports whether the request was counted under l and is refused by it.
func (t tally) refuses(l models.Limit) bool { return t.has(l) && !t.counted[l.Key].Allowed }

// allowed are those of the limits that the request is within, and so has used.
func (t tally) allowed() []models.Limit {
	return slices.DeleteFunc(slices.Clone(t.limits), t.refuses)
}

// admit returns refusal, with the time after which to try again, if one of
// these limits refuses the request. What the others have counted is taken back
// then: who is refused uses nothing up. The client is told what is left of the
// first of them that counts.
func (s *server) admit(ctx context.Context, h http.Header, t tally, refusal *problem, limits ...models.Limit) error {
	var wait time.Duration
	told, refused := false, false
	for _, l := range limits {
		if !t.has(l) {
			continue
		}
		c := t.counted[l.Key]
		if !told {
			t.policy.tell(h, c.Remaining, effective(l, c.Reset))
			told = true
		}
		if !c.Allowed {
			wait, refused = max(wait, c.RetryAfter), true
		}
	}
	if !refused {
		return nil
	}
	s.metrics.Throttled(string(t.policy))
	s.refund(ctx, t.allowed())
	t.policy.tell(h, 0, wait)
	answer := *refusal
	answer.retryAfter = retryIn(wait)
	return &answer
}

// throttle counts r under limits, and returns refusal if that is too often. What
// it returns otherwise can be taken back.
func (s *server) throttle(w http.ResponseWriter, r *http.Request, p policy, refusal *problem, limits ...models.Limit) (tally, error) {
	t, err := s.count(r.Context(), p, limits...)
	if err != nil {
		return tally{}, err
	}
	return t, s.admit(r.Context(), w.Header(), t, refusal, limits...)
}

// takeBack makes uncounted a request that was admitted.
func (s *server) takeBack(ctx context.Context, h http.Header, t tally) {
	used := t.allowed()
	if len(used) == 0 {
		return
	}
	s.refund(ctx, used)
	l := used[0]
	c := t.counted[l.Key]
	t.policy.tell(h, c.Remaining+1, effective(l, c.Reset-l.Window/time.Duration(l.Quota)))
}

// refund takes one hit back from each limit. A client that leaves meanwhile, or
// a database that fails, is no reason to answer otherwise: the limits forget by
// themselves.
func (s *server) refund(ctx context.Context, limits []models.Limit) {
	if len(limits) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if err := s.db.Refund(ctx, limits); err != nil {
		s.log.WarnContext(ctx, "a hit was not taken back", "error", err)
	}
}
