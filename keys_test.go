package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"parley/auth"
)

func TestKeysAreMadeBesideTheDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cfg := &configure([]string{"DATABASE_URL=sqlite://" + filepath.Join(dir, "chat.db")}, "").Config
	var log bytes.Buffer
	_, first, err := openKeys(cfg, newLogger(&log, cfg))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "chat.keys.json")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode(); got != 0o600 {
		t.Errorf("mode: got %v, want -rw-------", got)
	}
	if got := strings.Count(log.String(), "\n"); got != 1 {
		t.Errorf("log: got %d lines, want one that tells of the keys:\n%s", got, &log)
	}
	_, second, err := openKeys(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := second.Public(), first.Public(); !bytes.Equal(got, want) {
		t.Errorf("another start: got the keys %s, want %s", got, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got the files %v, %v, want %s alone", entries, err, path)
	}
}

func TestManyStartsAtOnceFindTheSameKeys(t *testing.T) {
	t.Parallel()
	cfg := &configure([]string{"DATABASE_URL=sqlite://" + filepath.Join(t.TempDir(), "parley.db")}, "").Config
	log := slog.New(slog.DiscardHandler)
	var (
		sets  [32]string
		all   sync.WaitGroup
		start = make(chan struct{})
	)
	for i := range sets {
		all.Go(func() {
			<-start
			_, ring, err := openKeys(cfg, log)
			if err != nil {
				t.Error(err)
				return
			}
			sets[i] = string(ring.Public())
		})
	}
	close(start)
	all.Wait()
	for _, set := range sets {
		if set != sets[0] {
			t.Errorf("got the keys %s and %s", set, sets[0])
		}
	}
}

func TestKeysThatOthersCanReadAreAWarning(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		mode os.FileMode
		want bool
	}{
		"its owner alone": {0o600, false},
		"read-only":       {0o400, false},
		"the group too":   {0o640, true},
		"everybody":       {0o604, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "keys.json")
			writeFile(t, path, newKeySet(t), 0o600)
			if err := os.Chmod(path, test.mode); err != nil {
				t.Fatal(err)
			}
			cfg := &configure([]string{"JWT_KEYS_FILE=" + path}, "").Config
			var log bytes.Buffer
			if _, _, err := openKeys(cfg, newLogger(&log, cfg)); err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(log.String(), `"level":"WARN"`); got != test.want {
				t.Errorf("warned: got %t, want %t: %s", got, test.want, &log)
			}
		})
	}
}

func TestKeysWithoutAPlace(t *testing.T) {
	t.Parallel()
	cfg := &configure([]string{"DATABASE_URL=sqlite://" + filepath.Join(t.TempDir(), "absent", "parley.db")}, "").Config
	if _, _, err := openKeys(cfg, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("a folder that is not there: got no error")
	}
}

func TestKeysBesideTheDatabaseThatAreNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "parley.keys.json")
	writeFile(t, path, "{}", 0o600)
	cfg := &configure([]string{"DATABASE_URL=sqlite://" + filepath.Join(dir, "parley.db")}, "").Config
	if _, _, err := openKeys(cfg, slog.New(slog.DiscardHandler)); err == nil || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("got %v, want an error that begins with the file", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != "{}" {
		t.Errorf("got %s, %v: the file of another has been written", got, err)
	}
}

func TestKeysNew(t *testing.T) {
	t.Parallel()
	got := runParley(t, []string{"ENV=production"}, "keys", "new")
	if got.Code != 0 || got.Stderr != "" {
		t.Fatalf("got %+v", got)
	}
	if _, err := auth.NewKeyRing([]byte(got.Stdout)); err != nil {
		t.Error(err)
	}
	if again := runParley(t, nil, "keys", "new"); again.Stdout == got.Stdout {
		t.Error("the same keys again")
	}
}

func TestKeysList(t *testing.T) {
	t.Parallel()
	set, ids, secrets := twoKeys(t)
	want := "KID" + strings.Repeat(" ", len(ids[0])) + "ALG     USE\n" +
		ids[0] + "   EdDSA   signs, verifies\n" +
		ids[1] + "   EdDSA   stands by, verifies\n"
	file := filepath.Join(t.TempDir(), "keys.json")
	writeFile(t, file, set, 0o600)
	database := filepath.Join(t.TempDir(), "parley.db")
	writeFile(t, strings.TrimSuffix(database, ".db")+".keys.json", set, 0o600)
	for name, environ := range map[string][]string{
		"in the environment":  {"JWT_KEYS=" + set},
		"in a file":           {"JWT_KEYS_FILE=" + file},
		"beside the database": {"DATABASE_URL=sqlite://" + database},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := runParley(t, environ, "keys", "list")
			if got != (ended{0, want, ""}) {
				t.Errorf("got %+v, want %s", got, want)
			}
			for _, secret := range secrets {
				if strings.Contains(got.Stdout, secret) {
					t.Error("a private part is shown")
				}
			}
		})
	}
}

func TestKeysListBeforeThereAreAny(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	got := runParley(t, []string{"DATABASE_URL=sqlite://" + filepath.Join(dir, "parley.db")}, "keys", "list")
	want := ended{1, "", "parley: " + filepath.Join(dir, "parley.keys.json") + " is not there yet; parley serve makes it\n"}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("got the files %v, %v, want none", entries, err)
	}
}

// twoKeys returns a set of two keys, their ids and their private parts.
func twoKeys(t *testing.T) (set string, ids, secrets []string) {
	t.Helper()
	type jwkSet struct {
		Keys []map[string]string `json:"keys"`
	}
	var both jwkSet
	for range 2 {
		var one jwkSet
		if err := json.Unmarshal([]byte(newKeySet(t)), &one); err != nil {
			t.Fatal(err)
		}
		both.Keys = append(both.Keys, one.Keys...)
	}
	for _, key := range both.Keys {
		ids = append(ids, key["kid"])
		secrets = append(secrets, key["d"])
	}
	text, err := json.Marshal(both)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), ids, secrets
}
