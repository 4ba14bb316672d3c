package auth_test

import (
	"errors"
	"strings"
	"testing"

	"parley/auth"
)

func TestCheckPassword(t *testing.T) {
	t.Parallel()
	const (
		characters = "The password holds characters that cannot be used."
		short      = "The password needs at least 8 characters."
		long       = "The password is longer than 1024 bytes."
		common     = "The password is among the most common ones."
		pattern    = "The password is a plain sequence or repetition."
		address    = "The password is too close to the email address."
		ana        = "ana.lopez@mail.example.com"
	)
	varied := strings.Repeat("abcdefgij", 113) + "abcdefz"
	for name, c := range map[string]struct{ password, email, want string }{
		"words":                                  {"correct horse battery staple", ana, ""},
		"eight characters":                       {"xK4-qm7z", ana, ""},
		"eight characters of two bytes":          {"äöüßéèêñ", ana, ""},
		"1,024 bytes":                            {varied, ana, ""},
		"spaces around it":                       {"  xK4-qm7z  ", ana, ""},
		"emoji":                                  {"🐢🐙🦀🐡🦑🐚🐬🦭", ana, ""},
		"a word of the address among others":     {"lopez went to the sea", ana, ""},
		"the top-level domain":                   {"comcomet", ana, ""},
		"a short piece of the address":           {"anan-anan-x7", "an@ho.st", ""},
		"the address as half of it":              {"bernK4-q", "bern@ho.st", ""},
		"no address":                             {"xK4-qm7z", "", ""},
		"a common word among others":             {"my password is a turtle", ana, ""},
		"seven characters":                       {"xK4-qm7", ana, short},
		"seven characters of two bytes":          {"äöüßéèê", ana, short},
		"nothing":                                {"", ana, short},
		"1,025 bytes":                            {varied + "z", ana, long},
		"a NUL":                                  {"xK4-qm7z\x00", ana, characters},
		"broken UTF-8":                           {"xK4-qm7z\xff", ana, characters},
		"a common one":                           {"password", ana, common},
		"a common one in capitals":               {"PassWord123", ana, common},
		"a common one with punctuation":          {"Sunshine1!!", ana, common},
		"a common one with a leet letter":        {"p@ssw0rd", ana, common},
		"digits that go up":                      {"34567890123", ana, pattern},
		"digits that go down":                    {"54321098765", ana, pattern},
		"letters that go up":                     {"cdefghijk", ana, pattern},
		"letters that go down":                   {"zyxwvuts", ana, pattern},
		"one character":                          {"zzzzzzzzzzzz", ana, pattern},
		"two characters":                         {"zzzzyzyzyyz", ana, pattern},
		"three characters again and again":       {"xyzxyzxyzxy", ana, pattern},
		"four characters twice":                  {"ab7!ab7!", ana, pattern},
		"a row of keys":                          {"wertyuio", ana, pattern},
		"a row of keys backwards":                {";lkjhgfd", ana, pattern},
		"a row of keys of another country":       {"QWERTZUIO", ana, pattern},
		"the address":                            {ana, ana, address},
		"the address in capitals":                {"Ana.Lopez@Mail.Example.com", ana, address},
		"the local part":                         {"ana.lopez", ana, address},
		"the local part and a year":              {"AnaLopez1990", ana, address},
		"pieces of the local part, turned":       {"lopez-ana-7", ana, address},
		"a label of the domain":                  {"example1", ana, address},
		"the local part before a label":          {"lopezexample99", ana, address},
		"the local part of one piece, stretched": {"bernadette!!", "bernadette@x.org", address},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := auth.CheckPassword(c.password, c.email)
			if c.want == "" {
				if err != nil {
					t.Errorf("got %v", err)
				}
				return
			}
			var refusal *auth.Refusal
			if !errors.As(err, &refusal) || refusal.Reason != c.want || !errors.Is(err, auth.ErrWeakPassword) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
