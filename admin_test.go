package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"parley/auth"
	"parley/models"
	"parley/models/modelstest"
)

// cheap makes a password cost next to nothing.
var cheap = []string{"PASSWORD_MEMORY_KIB=8", "PASSWORD_TIME=1"}

// isPassword reports whether an account's password is that one.
func isPassword(t *testing.T, u models.User, password string) bool {
	t.Helper()
	ok, _, err := auth.NewPasswords(auth.Argon2Params{MemoryKiB: 8, Time: 1, Threads: 1}, 1).Verify(t.Context(), u.PasswordHash, password)
	if err != nil {
		t.Fatal(err)
	}
	return ok
}

func TestAdminCreate(t *testing.T) {
	t.Parallel()
	// A database that is not there yet.
	url := "sqlite://" + filepath.Join(t.TempDir(), "parley.db")
	create := func(stdin io.Reader, args ...string) ended {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), process{
			args: append([]string{"admin", "create"}, args...), environ: append([]string{"DATABASE_URL=" + url, "LOG_LEVEL=error"}, cheap...),
			stdin: stdin, stdout: &stdout, stderr: &stderr,
		})
		return ended{code, stdout.String(), stderr.String()}
	}
	account := func() models.User {
		db, err := models.Open(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		u, err := db.User(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	made := create(nil, "--email", "Root@Example.org")
	password := regexp.MustCompile(`^root@example\.org is an administrator\npassword: ([A-Z2-7]{26})\n$`).FindStringSubmatch(made.Stdout)
	if made.Code != 0 || password == nil {
		t.Fatalf("got %+v", made)
	}
	if u := account(); !u.IsAdmin || u.UserName != "root" || !isPassword(t, u, password[1]) {
		t.Errorf("the account is %+v", u)
	}
	got := create(strings.NewReader("correct horse battery\r\nnot this"), "--email", "root@example.org", "--name", "Ann", "--password-stdin")
	if want := (ended{0, "root@example.org is an administrator\n", ""}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if u := account(); !isPassword(t, u, "correct horse battery") {
		t.Errorf("the account is %+v", u)
	}
	for name, test := range map[string]struct {
		stdin io.Reader
		args  string
		want  string
	}{
		"no address":      {nil, "", "The email address is empty."},
		"a weak password": {strings.NewReader("12345678"), "--email root@example.org --password-stdin", "The password is among the most common ones."},
		"no stdin":        {nil, "--email root@example.org --password-stdin", "--password-stdin: there is no stdin"},
	} {
		got := create(test.stdin, strings.Fields(test.args)...)
		if want := (ended{1, "", "parley: " + test.want + "\n"}); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

// Replicas that start at once make one administrator, and none where there is one.
func TestTheFirstAdministratorAtStart(t *testing.T) {
	t.Parallel()
	modelstest.Each(t, func(t *testing.T, db *models.DB) {
		c := configure(append([]string{"ADMIN_EMAIL=Root@example.org", "ADMIN_PASSWORD=correct horse battery"}, cheap...), "")
		if err := c.need("ADMIN_EMAIL", "ADMIN_PASSWORD"); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		told := slog.New(slog.NewTextHandler(&log, nil))
		var starting sync.WaitGroup
		for range 4 {
			starting.Go(func() { firstAdmin(t.Context(), db, &c.Config, told) })
		}
		starting.Wait()
		if n := strings.Count(log.String(), "made the administrator"); n != 1 || strings.Contains(log.String(), "horse") {
			t.Errorf("the log says %s", &log)
		}
		users, _, err := db.Users(t.Context(), "", models.Page{})
		if err != nil || len(users) != 1 || users[0].Email != "root@example.org" || !users[0].IsAdmin || !isPassword(t, users[0].User, c.AdminPassword) {
			t.Fatalf("the users are %+v, %v", users, err)
		}
		log.Reset()
		c.AdminEmail = "another@example.org"
		firstAdmin(t.Context(), db, &c.Config, told)
		c.AdminEmail = ""
		firstAdmin(t.Context(), nil, &c.Config, told)
		users, _, err = db.Users(t.Context(), "", models.Page{})
		if got := fmt.Sprint(len(users), err, log.String()); got != "1 <nil>" {
			t.Errorf("got %s", got)
		}
	})
}
