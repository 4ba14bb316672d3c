package tracing

import "strings"

// maxStatement is how much of a statement a span holds, in bytes.
const maxStatement = 1000

// statement is a statement of SQL, as PostgreSQL (with standard strings) and SQLite
// read it, with a question mark for each of its values. Where it is not clear what
// is a value, the rest is left out.
func statement(query string) string {
	var out strings.Builder
	for rest := query; rest != "" && out.Len() < maxStatement; {
		var word string
		word, rest = next(rest)
		if word == "" {
			break
		}
		text := out.String()
		switch {
		case word == " " && (text == "" || strings.HasSuffix(text, " ")):
		case word == "?" && (strings.HasSuffix(text, "?, ") || strings.HasSuffix(text, "?,")):
			// One of a list says as much as all.
			shorter := strings.TrimRight(text, ", ")
			out.Reset()
			out.WriteString(shorter)
		default:
			out.WriteString(word)
		}
	}
	return strings.TrimSpace(out.String())
}

// next takes the first word of a statement off it: a name, a mark, " " for white
// space and comments, or "?" for a value. It is empty where that cannot be told.
func next(s string) (word, rest string) {
	c := s[0]
	switch {
	case isSpace(c):
		return " ", strings.TrimLeft(s, " \t\r\n\v\f")
	case strings.HasPrefix(s, "--"), strings.HasPrefix(s, "/*"):
		return comment(s)
	case c == '\'':
		return value(s[1:])
	case c == '"':
		end := strings.IndexByte(s[1:], '"')
		if end < 0 {
			return "", ""
		}
		return s[:end+2], s[end+2:]
	case isDigit(c) || c == '.' && len(s) > 1 && isDigit(s[1]):
		return "?", strings.TrimLeft(s, "0123456789.eExXabcdfABCDF_")
	case isLetter(c):
		return name(s)
	case c == '$' || c == '`' || c == '[' || c >= 0x80:
		return "", "" // strings and names of a kind that the program does not write
	}
	return s[:1], s[1:]
}

// comment takes a comment off s.
func comment(s string) (word, rest string) {
	if strings.HasPrefix(s, "--") {
		_, rest, _ = strings.Cut(s, "\n")
		return " ", rest
	}
	inside, rest, ended := strings.Cut(s[2:], "*/")
	if !ended || strings.Contains(inside, "/*") {
		return "", "" // PostgreSQL has comments in comments
	}
	return " ", rest
}

// name takes a name off s, or a value with a prefix that looks like one.
func name(s string) (word, rest string) {
	end := 1
	for end < len(s) && (isLetter(s[end]) || isDigit(s[end]) || s[end] == '$') {
		end++
	}
	if end < len(s) && s[end] == '\'' {
		return quoted(s[:end], s[end+1:])
	}
	return s[:end], s[end:]
}

// quoted takes a value off s, which stands in quotes behind a prefix.
func quoted(prefix, s string) (word, rest string) {
	switch strings.ToLower(prefix) {
	case "x", "b", "n":
		return value(s)
	}
	return "", "" // E'…' has escapes, and others nobody writes
}

// value takes a value off s that ends with a quote which is not doubled.
func value(s string) (word, rest string) {
	for {
		end := strings.IndexByte(s, '\'')
		if end < 0 {
			return "", ""
		}
		s = s[end+1:]
		if !strings.HasPrefix(s, "'") {
			return "?", s
		}
		s = s[1:]
	}
}

// summary is what a statement does to which table, as the name of its span.
func summary(statement string) string {
	words := strings.FieldsFunc(statement, func(r rune) bool { return r == ' ' || r == '(' || r == ')' || r == ',' || r == '"' })
	if len(words) == 0 {
		return "statement"
	}
	for i, word := range words[:len(words)-1] {
		switch strings.ToUpper(word) {
		case "FROM", "INTO":
			return strings.ToUpper(words[0]) + " " + words[i+1]
		case "UPDATE":
			if i == 0 {
				return "UPDATE " + words[1]
			}
		}
	}
	return strings.ToUpper(words[0])
}

func isSpace(c byte) bool  { return strings.IndexByte(" \t\r\n\v\f", c) >= 0 }
func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' || c == '_' }
