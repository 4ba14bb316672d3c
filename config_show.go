package main

import (
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
)

func showConfig(p process, markdown bool) error {
	if markdown {
		_, err := io.WriteString(p.stdout, settingsTable())
		return err
	}
	c := configure(p.environ, p.dotenv)
	table := tabwriter.NewWriter(p.stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tVALUE\tFROM")
	for _, s := range settings() {
		fmt.Fprintf(table, "%s\t%s\t%s\n", s.name, s.show(c.value(s)), c.from(s))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return c.need()
}

// settingsTable is the README's table of settings.
func settingsTable() string {
	var table strings.Builder
	table.WriteString("| name | default | meaning |\n| --- | --- | --- |\n")
	for _, s := range settings() {
		standard := s.absent
		if s.fallback != "" {
			standard = "`" + s.fallback + "`"
		}
		if s.production != "" {
			standard += "; in production `" + s.production + "`"
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", s.name, standard, s.desc)
	}
	return table.String()
}

// show is a setting's value as anyone may see it, on one line.
func (s setting) show(value string) string {
	switch {
	case value == "" && s.absent != "":
		return "(" + s.absent + ")"
	case value == "":
		return "(empty)"
	case s.secret == "all":
		return "(hidden)"
	case s.secret == "url":
		value = hidePasswords(value)
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Sprintf("%q", value)
	}
	return value
}

// secretWords are in the names of those parameters of a URL that are secret.
var secretWords = []string{"password", "key", "token", "secret"}

// hidePasswords hides what is secret in the URL of a database or another server:
// the password of the user, and those and the keys among the parameters.
func hidePasswords(address string) string {
	if strings.HasPrefix(address, "sqlite://") {
		return address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" || u.Opaque != "" {
		return "(hidden)"
	}
	query := u.Query()
	for name := range query {
		if slices.ContainsFunc(secretWords, func(word string) bool { return strings.Contains(strings.ToLower(name), word) }) {
			query.Set(name, "xxxxx") // as URL.Redacted writes it
		}
	}
	u.RawQuery = query.Encode()
	return u.Redacted()
}
