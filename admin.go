package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"parley/auth"
	"parley/models"
)

func adminCommands() command {
	return command{
		name:  "admin",
		does:  "make administrators",
		about: "It works on DATABASE_URL, also while the service runs.",
		sub: []command{{
			name: "create",
			does: "make an administrator",
			about: "An account that has the address already becomes it: its password is replaced and\n" +
				"it is signed out everywhere, since nobody knows who made it. Without\n" +
				"--password-stdin a password is made up and printed, once.",
			setup: func(flags *flag.FlagSet) action {
				email := flags.String("email", "", "the administrator's address")
				name := flags.String("name", "", "its name; by default what stands before the @")
				stdin := flags.Bool("password-stdin", false, "read the password from the first line of stdin")
				return func(ctx context.Context, p process) error { return createAdmin(ctx, p, *email, *name, *stdin) }
			},
		}},
	}
}

// createAdmin makes an administrator of an address.
func createAdmin(ctx context.Context, p process, email, name string, stdin bool) (err error) {
	c := configure(p.environ, p.dotenv)
	err = c.need("DATABASE_URL", "DATABASE_MAX_CONNS", "DATABASE_LISTEN_URL", "MIGRATE_ON_START", "ACCESS_TOKEN_TTL",
		"PASSWORD_MEMORY_KIB", "PASSWORD_TIME", "PASSWORD_THREADS", "LOG_LEVEL", "LOG_FORMAT")
	if err != nil {
		return err
	}
	password, made := rand.Text(), true
	if stdin {
		if password, err = firstLine(p.stdin); err != nil {
			return fmt.Errorf("--password-stdin: %w", err)
		}
		made = false
	}
	db, err := openDatabase(ctx, &c.Config, newLogger(p.stderr, &c.Config))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	admin, _, err := makeAdmin(ctx, db, &c.Config, models.User{Email: email, UserName: name}, password, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s is an administrator\n", admin.Email)
	if made {
		fmt.Fprintf(p.stdout, "password: %s\n", password)
	}
	return nil
}

// maxLine is more than any password takes.
const maxLine = 4096

// firstLine reads a line, which need not have an end.
func firstLine(r io.Reader) (string, error) {
	if r == nil {
		return "", errors.New("there is no stdin")
	}
	text, err := io.ReadAll(io.LimitReader(r, maxLine))
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), err
}

// makeAdmin makes an administrator of u, or with onlyFirst says that there is
// one.
func makeAdmin(ctx context.Context, db *models.DB, cfg *Config, u models.User, password string, onlyFirst bool) (models.User, bool, error) {
	var err error
	if u.Email, err = adminEmail(u.Email, password); err != nil {
		return models.User{}, false, err
	}
	if u.UserName == "" {
		u.UserName, _, _ = strings.Cut(u.Email, "@")
	}
	u.PasswordHash, err = auth.NewPasswords(cfg.argon2(), 1).Hash(ctx, password)
	if err != nil {
		return models.User{}, false, err
	}
	made, err := db.MakeAdmin(ctx, &u, onlyFirst, cfg.AccessTokenTTL, models.By{})
	return u, made, err
}

// adminEmail judges an address and a password as a sign-up would, and returns the
// address as it is stored. An error never repeats the password.
func adminEmail(email, password string) (string, error) {
	email, err := auth.NormalizeEmail(email)
	if err == nil {
		err = auth.CheckPassword(password, email)
	}
	if refusal, ok := errors.AsType[*auth.Refusal](err); ok {
		return "", errors.New(refusal.Reason)
	}
	return email, err
}

// firstAdmin makes the administrator that is set, if there is none. Replicas that
// start at once make one. A start does not fail for want of it.
func firstAdmin(ctx context.Context, db *models.DB, cfg *Config, log *slog.Logger) {
	if cfg.AdminEmail == "" {
		return
	}
	has, err := db.HasAdmin(ctx)
	var made bool
	if err == nil && !has {
		_, made, err = makeAdmin(ctx, db, cfg, models.User{Email: cfg.AdminEmail}, cfg.AdminPassword, true)
	}
	switch {
	case err != nil:
		log.Error("no administrator could be made of ADMIN_EMAIL", "err", err)
	case made:
		log.Info("made the administrator of ADMIN_EMAIL")
	}
}
