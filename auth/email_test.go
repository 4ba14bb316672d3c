package auth_test

import (
	"errors"
	"strings"
	"testing"

	"parley/auth"
)

func TestNormalizeEmail(t *testing.T) {
	t.Parallel()
	longLabel := strings.Repeat("d", 63)
	const (
		empty   = "The email address is empty."
		long    = "The email address is too long."
		ascii   = "The email address may only hold ASCII characters. Write an international domain in its xn-- form."
		spaces  = "The email address may not hold spaces or control characters."
		oneAt   = "The email address needs exactly one @."
		before  = "The part before the @ is not valid."
		behind  = "The part after the @ is not a valid domain."
		example = "ana@example.com"
	)
	for name, c := range map[string]struct{ in, want, reason string }{
		"plain":                         {example, example, ""},
		"in capitals":                   {"Ana@Example.COM", example, ""},
		"with space around it":          {" \tana@example.com\r\n", example, ""},
		"with a tag":                    {"ana+chat@example.com", "ana+chat@example.com", ""},
		"with every character of atoms": {"!#$%&'*+-/=?^_`{|}~.x@example.com", "!#$%&'*+-/=?^_`{|}~.x@example.com", ""},
		"with many labels":              {"a@b-1.c.de", "a@b-1.c.de", ""},
		"with an encoded domain":        {"a@xn--kln-sna.de", "a@xn--kln-sna.de", ""},
		"with a local part of 64":       {strings.Repeat("l", 64) + "@example.com", strings.Repeat("l", 64) + "@example.com", ""},
		"with a label of 63":            {"a@" + longLabel + ".de", "a@" + longLabel + ".de", ""},

		"empty":                      {"", "", empty},
		"space alone":                {" \n", "", empty},
		"of 255 bytes":               {"a@" + longLabel + "." + longLabel + "." + longLabel + "." + strings.Repeat("d", 61), "", long},
		"without an @":               {"ana.example.com", "", oneAt},
		"with two @":                 {"ana@b@example.com", "", oneAt},
		"with a local part of 65":    {strings.Repeat("l", 65) + "@example.com", "", before},
		"without a local part":       {"@example.com", "", before},
		"with a dot first":           {".ana@example.com", "", before},
		"with a dot last":            {"ana.@example.com", "", before},
		"with two dots":              {"an..a@example.com", "", before},
		"quoted":                     {`"ana"@example.com`, "", before},
		"with a comment":             {"ana(x)@example.com", "", before},
		"with a name":                {"Ana<ana@example.com>", "", before},
		"as one of a list":           {"ana@example.com,bob@example.com", "", oneAt},
		"with a backslash":           {`an\a@example.com`, "", before},
		"without a domain":           {"ana@", "", behind},
		"with a domain of one label": {"ana@localhost", "", behind},
		"with a dot behind":          {"ana@example.com.", "", behind},
		"with an empty label":        {"ana@example..com", "", behind},
		"with a label of 64":         {"ana@d" + longLabel + ".de", "", behind},
		"with a hyphen first":        {"ana@-example.com", "", behind},
		"with a hyphen last":         {"ana@example-.com", "", behind},
		"with an underscore":         {"ana@exa_mple.com", "", behind},
		"with an address literal":    {"ana@[192.0.2.1]", "", behind},
		"with an IPv4 address":       {"ana@192.0.2.1", "", behind},
		"with a space inside":        {"ana @example.com", "", spaces},
		"with a second header":       {"ana@example.com\r\nBcc: bob@example.com", "", spaces},
		"with a NUL":                 {"ana\x00@example.com", "", spaces},
		"with a DEL":                 {"ana\x7f@example.com", "", spaces},
		"with an international name": {"anä@example.com", "", ascii},
		"with another domain":        {"ana@köln.de", "", ascii},
		"with a letter like k":       {"a\u212aa@example.com", "", ascii},
		"with a space that is wide":  {"ana@example.com\u00a0", "", ascii},
		"with broken UTF-8":          {"an\xffa@example.com", "", ascii},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := auth.NormalizeEmail(c.in)
			if got != c.want || (err == nil) != (c.reason == "") {
				t.Fatalf("got %q, %v; want %q, %q", got, err, c.want, c.reason)
			}
			var refusal *auth.Refusal
			if err != nil && (!errors.As(err, &refusal) || refusal.Reason != c.reason || !errors.Is(err, auth.ErrInvalidEmail)) {
				t.Errorf("got %v, want %q", err, c.reason)
			}
		})
	}
}
