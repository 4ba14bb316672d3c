package auth

import "strings"

const (
	maxEmailBytes  = 254 // RFC 5321 §4.5.3.1.3, without the angle brackets
	maxLocalBytes  = 64
	maxDomainLabel = 63
	// localBytes are what RFC 5321 §4.1.2 calls atext, in lower case, and the
	// dot between atoms. Nothing in it can end a mail header or quote.
	localBytes = "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-/=?^_`{|}~."
	labelBytes = "abcdefghijklmnopqrstuvwxyz0123456789-"
)

// NormalizeEmail returns the one form under which an address is stored and
// looked up: without surrounding ASCII space, in lower case. The error is a
// *Refusal that wraps ErrInvalidEmail.
//
// It takes local@domain with a local part of dot-separated atoms (1 to 64
// bytes) and a domain of two labels or more, at most 254 bytes in all. Quoted
// local parts, comments, address literals and anything outside ASCII are
// refused; an internationalised domain is taken in its xn-- form.
func NormalizeEmail(s string) (string, error) {
	s = strings.Trim(s, " \t\r\n")
	switch {
	case s == "":
		return "", badEmail("The email address is empty.")
	case len(s) > maxEmailBytes:
		return "", badEmail("The email address is too long.")
	}
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 0x80:
			return "", badEmail("The email address may only hold ASCII characters. Write an international domain in its xn-- form.")
		case c <= ' ' || c == 0x7f:
			return "", badEmail("The email address may not hold spaces or control characters.")
		}
	}
	s = strings.ToLower(s)
	local, domain, found := strings.Cut(s, "@")
	if !found || strings.Contains(domain, "@") {
		return "", badEmail("The email address needs exactly one @.")
	}
	if !validLocal(local) {
		return "", badEmail("The part before the @ is not valid.")
	}
	if !validDomain(domain) {
		return "", badEmail("The part after the @ is not a valid domain.")
	}
	return s, nil
}

func badEmail(reason string) error {
	return &Refusal{Reason: reason, kind: ErrInvalidEmail}
}

// validLocal reports whether s is a dot-atom.
func validLocal(s string) bool {
	return s != "" && len(s) <= maxLocalBytes && strings.Trim(s, localBytes) == "" &&
		s[0] != '.' && s[len(s)-1] != '.' && !strings.Contains(s, "..")
}

// validDomain reports whether s is a name that mail can be sent to: two labels
// or more, the last not a number, so that it is no IPv4 address.
func validDomain(s string) bool {
	labels := strings.Split(s, ".")
	for _, label := range labels {
		if label == "" || len(label) > maxDomainLabel || strings.Trim(label, labelBytes) != "" ||
			label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	last := labels[len(labels)-1]
	return len(labels) >= 2 && strings.Trim(last, "0123456789") != ""
}
