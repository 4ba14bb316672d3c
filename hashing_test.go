package main

import (
	"bytes"
	"encoding/gob"
	"strings"
	"testing"

	"parley/auth"
)

// A process that fails, in whatever way, costs nobody a login.
func TestWhatAProcessCannotHashIsHashedHere(t *testing.T) {
	t.Parallel()
	job := auth.HashJob{Password: "correct horse battery", Params: auth.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 1}}
	for name, test := range map[string]struct {
		program string
		warns   bool
	}{
		"none":                      {"", false},
		"one that is not there":     {"/nowhere/parley", true},
		"one that ends at once":     {"/bin/true", true},
		"one that gives jobs back":  {"/bin/cat", true},
		"one that is not a program": {t.TempDir(), true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log bytes.Buffer
			hashers := newHashers(process{program: test.program}, 2, newLogger(&log, &Config{}))
			for range 2 {
				log.Reset()
				made := hashers[1](job)
				if got := (auth.HashJob{Password: job.Password, Hash: made.Hash}).Do(); !got.Matches {
					t.Errorf("got %+v, which is no hash of the password", made)
				}
				if got := strings.Count(log.String(), `"level":"WARN"`); (got == 1) != test.warns || got > 1 {
					t.Errorf("got %d warnings, want one: %t\n%s", got, test.warns, &log)
				}
				if strings.Contains(log.String(), job.Password) {
					t.Errorf("the password is in the log:\n%s", &log)
				}
			}
		})
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	jobs := []auth.HashJob{
		{Password: "\xff\x00", Params: auth.Argon2Params{MemoryKiB: 64, Time: 1, Threads: 2}},
		{Password: "U*U", Hash: "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
		{Password: "U*V", Hash: "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"},
	}
	var in, out, stderr bytes.Buffer
	encoder := gob.NewEncoder(&in)
	for _, job := range jobs {
		if err := encoder.Encode(job); err != nil {
			t.Fatal(err)
		}
	}
	if code := run(t.Context(), process{args: []string{"hash"}, stdin: &in, stdout: &out, stderr: &stderr}); code != 0 || stderr.Len() > 0 {
		t.Fatalf("got code %d and %s", code, &stderr)
	}
	decoder := gob.NewDecoder(&out)
	results := make([]auth.HashResult, len(jobs))
	for i := range results {
		if err := decoder.Decode(&results[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !strings.HasPrefix(results[0].Hash, "$argon2id$v=19$m=64,t=1,p=2$") || results[0].Matches {
		t.Errorf("got %+v, want a hash", results[0])
	}
	for i, want := range []bool{true, false} {
		if got := results[i+1]; got != (auth.HashResult{Matches: want}) {
			t.Errorf("%q: got %+v, want %t", jobs[i+1].Password, got, want)
		}
	}
}

func TestHashOfNonsense(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	code := run(t.Context(), process{args: []string{"hash"}, stdin: strings.NewReader("open-sesame\n"), stdout: &stdout, stderr: &stderr})
	if code != 1 || stdout.Len() > 0 || !strings.HasPrefix(stderr.String(), "parley: ") || strings.Contains(stderr.String(), "sesame") {
		t.Errorf("got code %d, %q and %q", code, &stdout, &stderr)
	}
}
