package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/auth"
)

// A follower is a replica as far as its keys go.
type follower struct {
	t      *testing.T
	tokens *auth.Tokens
	log    journal
}

// A journal keeps what is logged, by whichever goroutine.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(line []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(line)
}

// take returns what was logged since it was called last.
func (j *journal) take() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	defer j.text.Reset()
	return j.text.String()
}

// follow follows the key file at path until the test's end. It is called in a
// bubble of synctest.
func follow(t *testing.T, path string) *follower {
	t.Helper()
	f := &follower{t: t}
	cfg := &configure([]string{"JWT_KEYS_FILE=" + path}, "").Config
	log := newLogger(&f.log, cfg)
	source, ring, err := openKeys(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	f.tokens = newTokens(cfg, ring)
	ctx, cancel := context.WithCancel(t.Context())
	var following sync.WaitGroup
	following.Go(func() { followKeys(ctx, source, f.tokens, log) })
	t.Cleanup(func() { cancel(); following.Wait() })
	return f
}

// logs waits until the file has been read n times more. It returns what was
// logged meanwhile, which is to be of these levels.
func (f *follower) logs(what string, n int, want ...string) string {
	f.t.Helper()
	time.Sleep(time.Duration(n) * readKeysEvery)
	synctest.Wait()
	log := f.log.take()
	var got []string
	for line := range strings.Lines(log) {
		var entry struct{ Level string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			f.t.Fatalf("%v: %s", err, line)
		}
		got = append(got, entry.Level)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		f.t.Errorf("%s: got %v logged, want %v:\n%s", what, got, want, log)
	}
	return log
}

// access is an access token of anybody.
func (f *follower) access() string {
	f.t.Helper()
	pair, err := f.tokens.Issue(f.tokens.NewSession(7))
	if err != nil {
		f.t.Fatal(err)
	}
	return pair.AccessToken
}

func (f *follower) takes(token string) bool {
	_, err := f.tokens.VerifyAccess(token)
	return err == nil
}

func TestKeysAreFollowed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "keys.json")
	one, other := newKeySet(t), newKeySet(t)
	writeFile(t, path, one, 0o600)
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, path)
		first := f.access()
		if !f.takes(first) { // and remembers it
			t.Fatal("a token is refused")
		}
		f.logs("a file that stays as it is", 3)
		writeFile(t, path, other, 0o600)
		f.logs("another set", 2, "INFO")
		if f.takes(first) {
			t.Error("a token of a key that is gone is taken")
		}
		second := f.access()
		writeFile(t, path, other[:len(other)/2], 0o600)
		if log := f.logs("half a file", 3, "ERROR"); strings.Contains(log, other[len(other)/3:len(other)/2]) {
			t.Errorf("the file is in the log: %s", log)
		}
		writeFile(t, path, "", 0o600)
		f.logs("an empty file", 3, "ERROR")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		f.logs("no file", 3, "ERROR")
		if !f.takes(second) || f.takes(first) {
			t.Error("the keys of before have not stayed")
		}
		writeFile(t, path, one, 0o600)
		f.logs("the first set again", 2, "INFO")
		if !f.takes(first) || f.takes(second) {
			t.Error("the first set is not in use again")
		}
	})
}

// Kubernetes mounts a secret as a link to a link, and swaps the second.
func TestKeysAreFollowedThroughLinks(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	mount := func(version string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(folder, version), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(folder, version, "keys.json"), newKeySet(t), 0o600)
		draft := filepath.Join(folder, "..data_tmp")
		if err := os.Symlink(version, draft); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(draft, filepath.Join(folder, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1")
	path := filepath.Join(folder, "keys.json")
	if err := os.Symlink(filepath.Join("..data", "keys.json"), path); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		f := follow(t, path)
		first := f.access()
		mount("..2")
		f.logs("another version", 1, "INFO")
		if f.takes(first) {
			t.Error("a token of a key that is gone is taken")
		}
	})
}

func TestKeysOfASettingAreNotFollowed(t *testing.T) {
	t.Parallel()
	cfg := &configure([]string{"JWT_KEYS=" + newKeySet(t)}, "").Config
	source, ring, err := openKeys(cfg, newLogger(t.Output(), cfg))
	if err != nil {
		t.Fatal(err)
	}
	// It returns at once.
	followKeys(t.Context(), source, newTokens(cfg, ring), newLogger(t.Output(), cfg))
}

// readKeys reads the file of a key set.
func readKeys(t *testing.T, path string) (text string, keys []map[string]string) {
	t.Helper()
	set, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var in struct {
		Keys []map[string]string `json:"keys"`
	}
	if err := json.Unmarshal(set, &in); err != nil {
		t.Fatal(err)
	}
	return string(set), in.Keys
}

// newKey is a key of its own.
func newKey(t *testing.T) map[string]string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key.json")
	writeFile(t, path, newKeySet(t), 0o600)
	_, keys := readKeys(t, path)
	return keys[0]
}

func TestKeysRotate(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	file, link := filepath.Join(folder, "keys.json"), filepath.Join(t.TempDir(), "keys.json")
	writeFile(t, file, newKeySet(t), 0o600)
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	_, before := readKeys(t, file)
	a := before[0]["kid"]

	got := runParley(t, nil, "keys", "rotate", link)
	text, keys := readKeys(t, file)
	if len(keys) != 2 {
		t.Fatalf("got %+v and %d keys, want 2", got, len(keys))
	}
	b := keys[1]["kid"]
	want := ended{0, b + " stands by, and " + a + " goes on signing.\n" +
		"When every replica has read the file, rotate again, and " + b + " signs.\n", ""}
	if got != want {
		t.Errorf("the first time: got %+v, want %+v", got, want)
	}

	got = runParley(t, nil, "keys", "rotate", link)
	if got.Code != 1 || got.Stdout != "" || !strings.HasPrefix(got.Stderr, "parley: "+file+": the standby key is too fresh to sign: \""+b+"\" was added ") {
		t.Errorf("at once again: got %+v", got)
	}
	if again, _ := readKeys(t, file); again != text {
		t.Errorf("a rotation that is refused has written %s", again)
	}

	writeFile(t, file, strings.Replace(text, keys[1]["added_at"], "2026-01-01T00:00:00Z", 1), 0o600)
	got = runParley(t, []string{"REFRESH_MAX_TTL=2400h"}, "keys", "rotate", link)
	_, keys = readKeys(t, file)
	if len(keys) != 3 {
		t.Fatalf("got %+v and %d keys, want 3", got, len(keys))
	}
	c := keys[1]["kid"]
	want = ended{0, b + " signs, and " + c + " stands by.\n" + a + " goes on verifying what it has signed.\n", ""}
	if got != want || keys[0]["kid"] != b || keys[2]["kid"] != a || keys[2]["d"] != "" {
		t.Errorf("later: got %+v and %v, want %+v", got, keys, want)
	}
	until, err := time.Parse(time.RFC3339, keys[2]["needed_until"])
	if left := time.Until(until); err != nil || left < 99*24*time.Hour || left > 100*24*time.Hour {
		t.Errorf("the key is needed until %s, %v; want a hundred days", keys[2]["needed_until"], err)
	}
	if got, want := runParley(t, []string{"JWT_KEYS_FILE=" + file}, "keys", "list"), (ended{0, "KID" + strings.Repeat(" ", 43) + "ALG     USE\n" +
		b + "   EdDSA   signs, verifies\n" +
		c + "   EdDSA   stands by, verifies\n" +
		a + "   EdDSA   verifies, needed until " + keys[2]["needed_until"] + "\n", ""}); got != want {
		t.Errorf("keys list: got %+v, want %+v", got, want)
	}

	if target, err := os.Readlink(link); err != nil || target != file {
		t.Errorf("the link leads to %q, %v; want %s", target, err, file)
	}
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("got the files %v, %v; want %s alone", entries, err, file)
	}
}

// What a secret has signed keeps it whole; what has expired goes.
func TestKeysRotateSaysWhatStaysAndWhatGoes(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.json")
	standby, retired := newKey(t), newKey(t)
	retired["needed_until"] = "2026-01-01T00:00:00Z"
	delete(retired, "d")
	secret := map[string]string{"kid": "secret", "kty": "oct", "alg": "HS256", "k": strings.Repeat("k", 64)}
	set, err := json.Marshal(map[string]any{"keys": []any{secret, standby, retired}})
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, file, string(set), 0o600)
	got := runParley(t, nil, "keys", "rotate", file)
	_, keys := readKeys(t, file)
	if len(keys) != 3 {
		t.Fatalf("got %+v and %d keys, want 3", got, len(keys))
	}
	want := ended{0, standby["kid"] + " signs, and " + keys[1]["kid"] + " stands by.\n" +
		"secret goes on verifying what it has signed.\n" +
		"secret is symmetric and stays whole: whoever has it can still sign with it.\n" +
		retired["kid"] + " is gone: all that it signed has expired.\n", ""}
	if got != want || keys[2]["k"] != secret["k"] {
		t.Errorf("got %+v and %v, want %+v", got, keys[2], want)
	}
}

func TestKeysRotateKeepsModeAndOwner(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "keys.json")
	writeFile(t, file, newKeySet(t), 0o600)
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	// Only root can give a file away; for others the owner stays anyway.
	if os.Geteuid() == 0 {
		if err := os.Chown(file, 4321, 4322); err != nil {
			t.Fatal(err)
		}
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := runParley(t, nil, "keys", "rotate", file); got.Code != 0 {
		t.Fatalf("got %+v", got)
	}
	after, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if after.Mode() != before.Mode() || owner(t, after) != owner(t, before) {
		t.Errorf("got %v of %v, want %v of %v", after.Mode(), owner(t, after), before.Mode(), owner(t, before))
	}
}

func TestKeysRotateOfNoKeys(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	none, absent := filepath.Join(folder, "none.json"), filepath.Join(folder, "absent.json")
	writeFile(t, none, `{"keys":[]}`, 0o600)
	for name, test := range map[string]struct {
		environ []string
		file    string
		want    string
	}{
		"a file that is not there": {nil, absent, "lstat " + absent + ": no such file or directory"},
		"a file of something else": {nil, none, none + ": key set: no keys"},
		"a bad setting":            {[]string{"REFRESH_MAX_TTL=soon"}, none, `REFRESH_MAX_TTL: "soon" is not a duration; write one such as 2160h`},
	} {
		if got, want := runParley(t, test.environ, "keys", "rotate", test.file), (ended{1, "", "parley: " + test.want + "\n"}); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}
