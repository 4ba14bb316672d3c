package auth

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// What RotateKeySet notes in a key, as times by RFC 3339. Other readers of a
// JWK pass over members that they do not know (RFC 7517 §4).
const (
	memberAdded  = "added_at"     // of a standby: when it was put into the set
	memberNeeded = "needed_until" // of a retired key: when the last token that it signed expires
)

// ErrKeyTooFresh is a standby that some replica may not know yet: it would
// refuse what the key signs.
var ErrKeyTooFresh = errors.New("auth: the standby key is too fresh to sign")

// KeyTimes are what the rotation of keys goes by. Known is how long after it was
// put into the set a key is known to every replica, Needed how long after it
// signed for the last time a key still has to verify.
type KeyTimes struct {
	Known, Needed time.Duration
}

// KeyRotation is what RotateKeySet has done, by the kids of keys. Where there
// was no standby, the same key signs as before, and Retired is empty.
type KeyRotation struct {
	Signs    string
	StandsBy string
	Retired  string
	// Whole says that the retired key is symmetric: it has no public half, and
	// whoever can verify with it can sign with it.
	Whole   bool
	Dropped []string
}

// ringEntry is a key with the JWK that it was read from.
type ringEntry struct {
	*key
	jwk object
}

// standsBy reports whether the key can be made to sign. A symmetric one cannot:
// one that has retired looks the same.
func (e ringEntry) standsBy() bool { return e.private != nil && e.published != nil }

// RotateKeySet returns the JWK set that comes after jwkSet, for replicas that
// change to it one after the other, in any order: no token is signed with a key
// that some replica does not know yet.
//
// The first key signs. The standby, which is the first other one with a private
// part, becomes the first; of the key that signed before, the public half
// stays, for as long as tokens that it signed may be valid; a fresh Ed25519 key
// becomes the next standby, unless there is another one already. What is no
// longer needed is dropped. Where there is no standby, a fresh one is added, and
// the next rotation makes it sign. A standby that was added less than
// times.Known before now is ErrKeyTooFresh.
func RotateKeySet(jwkSet []byte, now time.Time, times KeyTimes) ([]byte, KeyRotation, error) {
	set, keys, err := readKeySet(jwkSet)
	if err != nil {
		return nil, KeyRotation{}, err
	}
	done := KeyRotation{Signs: keys[0].id}
	if standby := slices.IndexFunc(keys[1:], ringEntry.standsBy) + 1; standby > 0 {
		if err := settled(keys[standby], now, times.Known); err != nil {
			return nil, KeyRotation{}, err
		}
		next, last := keys[standby], keys[0]
		delete(next.jwk, memberAdded)
		done.Signs, done.Retired, done.Whole = next.id, last.id, last.published == nil
		rest := slices.Delete(slices.Clone(keys), standby, standby+1)[1:]
		keys = slices.Concat([]ringEntry{next}, rest, []ringEntry{retired(last)})
	}
	if done.Dropped, keys, err = dropPast(keys, now, times.Needed); err != nil {
		return nil, KeyRotation{}, err
	}
	if keys, err = withStandby(keys, now); err != nil {
		return nil, KeyRotation{}, err
	}
	done.StandsBy = keys[1].id

	entries := make([]object, len(keys))
	for i, k := range keys {
		entries[i] = k.jwk
	}
	text, err := formatKeySet(set, entries)
	return text, done, err
}

// readKeySet reads a JWK set with its keys.
func readKeySet(jwkSet []byte) (object, []ringEntry, error) {
	ring, err := NewKeyRing(jwkSet)
	if err != nil {
		return nil, nil, err
	}
	set, err := members(jwkSet)
	if err != nil {
		return nil, nil, fmt.Errorf("auth: key set: %w", err)
	}
	var jwks []object
	if err := set.read("keys", &jwks); err != nil {
		return nil, nil, fmt.Errorf("auth: key set: %w", err)
	}
	keys := make([]ringEntry, len(jwks))
	for i, k := range ring.keys {
		keys[i] = ringEntry{k, jwks[i]}
	}
	return set, keys, nil
}

// settled returns ErrKeyTooFresh if the key was added less than known before
// now.
func settled(e ringEntry, now time.Time, known time.Duration) error {
	added, given, err := e.time(memberAdded)
	if err != nil || !given {
		return err
	}
	if age := now.Sub(added); 0 <= age && age < known {
		return fmt.Errorf("%w: %q was added %v ago, and is known everywhere after %v", ErrKeyTooFresh, e.id, age.Round(time.Second), known)
	}
	return nil
}

// retired is a key that no longer signs: its public half, or all of it where it
// has none.
func retired(e ringEntry) ringEntry {
	if e.published == nil {
		return e
	}
	public := make(object)
	for name, value := range e.published {
		public.set(name, value)
	}
	public["kid"] = e.jwk["kid"] // as it was written
	return ringEntry{&key{id: e.id, method: e.method, public: e.public, published: e.published}, public}
}

// dropPast drops the keys that are no longer needed, and notes until when the
// others that have retired are.
func dropPast(keys []ringEntry, now time.Time, needed time.Duration) (dropped []string, kept []ringEntry, err error) {
	for i, k := range keys {
		if i == 0 || k.standsBy() {
			kept = append(kept, k)
			continue
		}
		until, given, err := k.time(memberNeeded)
		switch {
		case err != nil:
			return nil, nil, err
		case given && until.Before(now):
			dropped = append(dropped, k.id)
			continue
		case !given:
			k.jwk.set(memberNeeded, now.Add(needed).UTC().Format(time.RFC3339))
		}
		kept = append(kept, k)
	}
	return dropped, kept, nil
}

// withStandby puts the standby, or a fresh one where there is none, into the
// second place.
func withStandby(keys []ringEntry, now time.Time) ([]ringEntry, error) {
	if i := slices.IndexFunc(keys[1:], ringEntry.standsBy) + 1; i > 0 {
		standby := keys[i]
		return slices.Insert(slices.Delete(keys, i, i+1), 1, standby), nil
	}
	jwk, err := generateKey()
	if err != nil {
		return nil, err
	}
	jwk.set(memberAdded, now.UTC().Format(time.RFC3339))
	var id string
	if err := jwk.read("kid", &id); err != nil {
		return nil, err
	}
	return slices.Insert(keys, 1, ringEntry{&key{id: id}, jwk}), nil
}

// time reads a member that is a time, if it is there.
func (e ringEntry) time(name string) (t time.Time, given bool, err error) {
	var text string
	if err = e.jwk.readOptional(name, &text); err == nil && text != "" {
		t, err = time.Parse(time.RFC3339, text)
	}
	if err != nil {
		return time.Time{}, false, fmt.Errorf("auth: key set: key %q: %s is no time by RFC 3339", e.id, name)
	}
	return t, text != "", nil
}
