package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"parley/auth"
)

func keysCommands() command {
	return command{
		name: "keys",
		does: "make, list and rotate the keys that sign tokens",
		sub: []command{
			{
				name: "new",
				does: "print a new key set",
				about: "It holds a private key: keep it where only the service can read it.\n\n" +
					"  (umask 077; parley keys new > keys.json)\n\n" +
					"Then set JWT_KEYS_FILE=keys.json.",
				setup: func(*flag.FlagSet) action { return newKeys },
			},
			{
				name:  "list",
				does:  "show the keys that are set, without their private parts",
				setup: func(*flag.FlagSet) action { return showKeys },
			},
			{
				name:    "rotate",
				operand: "FILE",
				does:    "have the key that stands by sign from now on",
				about: "Of the key that signed before, the public half stays for REFRESH_MAX_TTL, so that\n" +
					"nobody is signed out, and a fresh key stands by. A set without a standby is given\n" +
					"one, and the next rotation makes it sign: by then every replica has to have read\n" +
					"the file. Replicas read it every " + readKeysEvery.String() + ".\n\n" +
					"A symmetric key has no public half. It stays whole, and whoever has it can go on\n" +
					"signing with it: take it out of the file by hand if it has leaked, as any other\n" +
					"key that has. What it signed is refused as soon as the file has been read.",
				setup: func(flags *flag.FlagSet) action {
					return func(_ context.Context, p process) error { return rotateKeys(p, flags.Arg(0)) }
				},
			},
		},
	}
}

func newKeys(_ context.Context, p process) error {
	set, err := auth.GenerateKeySet()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(p.stdout, "%s\n", strings.TrimSpace(string(set)))
	return err
}

func showKeys(_ context.Context, p process) error {
	c := configure(p.environ, p.dotenv)
	if err := c.need("DATABASE_URL", "JWT_KEYS", "JWT_KEYS_FILE"); err != nil {
		return err
	}
	set := []byte(c.JWTKeys)
	if c.JWTKeys == "" {
		var err error
		set, err = os.ReadFile(c.keysPath())
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is not there yet; parley serve makes it", c.keysPath())
		}
		if err != nil {
			return err
		}
	}
	return listKeys(p.stdout, set)
}

// listKeys writes what may be shown of the keys of a set, in its order.
func listKeys(w io.Writer, set []byte) error {
	if _, err := auth.NewKeyRing(set); err != nil {
		return err
	}
	var in struct {
		Keys []struct {
			ID        string `json:"kid"`
			Algorithm string `json:"alg"`
			Private   string `json:"d"`
			Needed    string `json:"needed_until"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(set, &in); err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "KID\tALG\tUSE")
	for i, key := range in.Keys {
		use := "verifies"
		switch {
		case i == 0:
			use = "signs, verifies"
		case key.Private != "":
			use = "stands by, verifies"
		case key.Needed != "":
			use = "verifies, needed until " + key.Needed
		}
		fmt.Fprintf(table, "%s\t%s\t%s\n", key.ID, key.Algorithm, use)
	}
	return table.Flush()
}

// rotateKeys rotates the keys of the file at path, in the file itself where
// path is a symbolic link. A crash leaves the old set or the new one.
func rotateKeys(p process, path string) error {
	c := configure(p.environ, p.dotenv)
	if err := c.need("REFRESH_MAX_TTL"); err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	set, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	set, done, err := auth.RotateKeySet(set, time.Now(), auth.KeyTimes{Known: 2 * readKeysEvery, Needed: c.RefreshMaxTTL})
	if err != nil {
		return fmt.Errorf("%s: %s", path, withoutPackage(err))
	}
	if err := replaceKeySet(path, set); err != nil {
		return err
	}
	_, err = io.WriteString(p.stdout, describe(done))
	return err
}

// describe says in sentences what a rotation has done.
func describe(done auth.KeyRotation) string {
	var text strings.Builder
	if done.Retired == "" {
		fmt.Fprintf(&text, "%s stands by, and %s goes on signing.\n", done.StandsBy, done.Signs)
		fmt.Fprintf(&text, "When every replica has read the file, rotate again, and %s signs.\n", done.StandsBy)
	} else {
		fmt.Fprintf(&text, "%s signs, and %s stands by.\n", done.Signs, done.StandsBy)
		fmt.Fprintf(&text, "%s goes on verifying what it has signed.\n", done.Retired)
	}
	if done.Whole {
		fmt.Fprintf(&text, "%s is symmetric and stays whole: whoever has it can still sign with it.\n", done.Retired)
	}
	for _, id := range done.Dropped {
		fmt.Fprintf(&text, "%s is gone: all that it signed has expired.\n", id)
	}
	return text.String()
}

// replaceKeySet puts set into the place of the file at path, which keeps its
// mode and its owner.
func replaceKeySet(path string, set []byte) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	draft, err := writeDraft(path, set)
	if err != nil {
		return err
	}
	err = errors.Join(os.Chmod(draft, info.Mode().Perm()), keepOwner(draft, info))
	if err == nil {
		err = os.Rename(draft, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(draft))
	}
	return syncFolder(filepath.Dir(path))
}
