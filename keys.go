package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"parley/auth"
)

// keyRing returns the keys that cfg names, or those beside an SQLite file,
// which it makes where there are none yet.
func keyRing(cfg *Config, log *slog.Logger) (*auth.KeyRing, error) {
	if cfg.JWTKeys != "" {
		return auth.NewKeyRing([]byte(cfg.JWTKeys))
	}
	path := cfg.keysPath()
	if cfg.JWTKeysFile == "" {
		if err := makeKeySet(path, log); err != nil {
			return nil, fmt.Errorf("make a key set beside the database: %w", err)
		}
	}
	warnIfReadable(path, log)
	set, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	ring, err := auth.NewKeyRing(set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return ring, nil
}

// keysPath is the file of the key set: the one that is named, or the one
// beside the SQLite file.
func (c *Config) keysPath() string {
	if c.JWTKeysFile != "" {
		return c.JWTKeysFile
	}
	database, _ := c.sqlitePath()
	return strings.TrimSuffix(database, filepath.Ext(database)) + ".keys.json"
}

// makeKeySet writes a key set to path, for its owner alone, unless there is a
// file already. A crash leaves a whole set or none; of several processes at
// once, one makes the set that all of them find.
func makeKeySet(path string, log *slog.Logger) error {
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	set, err := auth.GenerateKeySet()
	if err != nil {
		return err
	}
	draft, err := os.CreateTemp(filepath.Dir(path), ".parley.keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(draft.Name())
	_, err = draft.Write(set)
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return err
	}
	// A link, unlike a rename, never replaces what another process put there.
	err = os.Link(draft.Name(), path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		log.Info("made a key set", "file", path)
	}
	return err
}

// warnIfReadable says so when others than its owner can read the key set.
func warnIfReadable(path string, log *slog.Logger) {
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" {
		return
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		log.Warn("the key set is open to other users of this machine; chmod 600 closes it",
			"file", path, "mode", mode.String())
	}
}

// A keyEntry is what may be shown of a key.
type keyEntry struct {
	ID        string `json:"kid"`
	Algorithm string `json:"alg"`
}

// listKeys returns the keys of a JWK set in its order: the first one signs.
func listKeys(set []byte) ([]keyEntry, error) {
	if _, err := auth.NewKeyRing(set); err != nil {
		return nil, err
	}
	var in struct {
		Keys []keyEntry `json:"keys"`
	}
	err := json.Unmarshal(set, &in)
	return in.Keys, err
}
