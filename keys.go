package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"parley/auth"
)

// A keySource is the file that a key set comes from. It has no path where the
// set is a setting itself.
type keySource struct {
	path string
	said *string // what the file held when it was last read, or why it could not be
}

// openKeys reads the keys that cfg names, or those beside an SQLite file, which
// it makes where there are none yet.
func openKeys(cfg *Config, log *slog.Logger) (*keySource, *auth.KeyRing, error) {
	if cfg.JWTKeys != "" {
		ring, err := auth.NewKeyRing([]byte(cfg.JWTKeys))
		return &keySource{}, ring, err
	}
	source := &keySource{path: cfg.keysPath()}
	if cfg.JWTKeysFile == "" {
		if err := makeKeySet(source.path, log); err != nil {
			return nil, nil, fmt.Errorf("make a key set beside the database: %w", err)
		}
	}
	warnIfReadable(source.path, log)
	ring, err := source.read()
	return source, ring, err
}

// read reads the file. It returns neither keys nor an error where there is
// nothing else to say than after the last reading.
func (s *keySource) read() (*auth.KeyRing, error) {
	set, err := os.ReadFile(s.path)
	said := string(set)
	if err != nil {
		said = err.Error()
	}
	if s.said != nil && *s.said == said {
		return nil, nil
	}
	s.said = &said
	if err != nil {
		return nil, err
	}
	ring, err := auth.NewKeyRing(set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.path, err)
	}
	return ring, nil
}

// readKeysEvery is how long a replica may take to notice that its key file has
// changed. The file is read and not watched: what mounts secrets swaps symbolic
// links, which few watchers see.
const readKeysEvery = 5 * time.Second

// followKeys has tokens use the keys of the file as it changes, until ctx ends.
// With a file that is bad or gone, which it tells once, the keys stay.
func followKeys(ctx context.Context, source *keySource, tokens *auth.Tokens, log *slog.Logger) {
	if source.path == "" {
		return
	}
	every(ctx, readKeysEvery, func() {
		ring, err := source.read()
		switch {
		case err != nil:
			log.Error("the key set cannot be used, keeping the keys of before", "err", err)
		case ring != nil:
			tokens.SetKeys(ring)
			log.Info("the key set has changed", "file", source.path)
		}
	})
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
	draft, err := writeDraft(path, set)
	if err != nil {
		return err
	}
	defer os.Remove(draft)
	// A link, unlike a rename, never replaces what another process put there.
	err = os.Link(draft, path)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		log.Info("made a key set", "file", path)
	}
	return err
}

// writeDraft stores a key set beside path, for its owner alone, and returns the
// name of the file.
func writeDraft(path string, set []byte) (string, error) {
	draft, err := os.CreateTemp(filepath.Dir(path), ".parley.keys-*") // mode 0600
	if err != nil {
		return "", err
	}
	_, err = draft.Write(set)
	if err = errors.Join(err, draft.Sync(), draft.Close()); err != nil {
		return "", errors.Join(err, os.Remove(draft.Name()))
	}
	return draft.Name(), nil
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
