package speech

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

var (
	// A line that says nothing: a rule, a heading's underline, the second row
	// of a table.
	ruled = regexp.MustCompile(`^[\s>]*([-*_=][-*_=\s]*|[|:\-\s]+)$`)
	// What marks a line as a heading, a quotation, or the entry of a list or of
	// things to do. A list's number is read.
	lineMark = regexp.MustCompile(`^\s*(?:>\s*)*(?:#{1,6}(?:\s+|$)|[-*+•]\s+(?:\[[ xX]\]\s+)?|)`)
	// A heading may be closed as well as opened.
	headingEnd = regexp.MustCompile(`\s+#+\s*$`)
	// An image or a link with its target or its reference; and a footnote.
	link     = regexp.MustCompile(`!?\[([^\[\]]*)\](?:\([^()\s]*(?:\([^()\s]*\)[^()\s]*)*(?:\s+["'(][^()]*)?\)|\[[^\[\]]*\])`)
	footnote = regexp.MustCompile(`\[\^[^\[\]\s]+\]:?`)
	// An address, of which the host is told.
	address = regexp.MustCompile(`<?\b(?:https?|ftp)://(?:[^\s/@<>()]*@)?([^\s/:?#<>()]+)[^\s<>()]*>?`)
	// A comment, or a tag of HTML.
	tag = regexp.MustCompile(`<!--.*?-->|</?[A-Za-z][A-Za-z0-9-]*(?:\s[^<>]*)?/?>`)
)

// Spoken returns what of a sentence in Markdown is read aloud: its words without
// the marks of emphasis, headings, lists, quotations and tables, links without
// their targets, addresses as their hosts, and no fenced code. It returns ""
// where nothing is left to say: no letter and no digit.
func Spoken(text string) string {
	var lines []string
	fence := ""
	for line := range strings.Lines(text) {
		line = strings.TrimRightFunc(line, unicode.IsSpace)
		mark := fenceOf(line)
		switch {
		case fence != "":
			if strings.HasPrefix(mark, fence) && strings.TrimSpace(line) == mark {
				fence = ""
			}
		case mark != "":
			fence = mark
		case !ruled.MatchString(line):
			lines = append(lines, spokenLine(line))
		}
	}
	said := strings.Join(strings.Fields(strings.Join(lines, " ")), " ")
	if !strings.ContainsFunc(said, func(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) }) {
		return ""
	}
	return said
}

// fenceOf returns the marks that open or close a fenced block, if the line does.
func fenceOf(line string) string {
	line = strings.TrimLeft(line, " \t")
	for _, mark := range []string{"`", "~"} {
		marks := line[:len(line)-len(strings.TrimLeft(line, mark))]
		// Behind marks of inline code there are more of them.
		inline := mark == "`" && strings.Contains(line[len(marks):], mark)
		if len(marks) >= 3 && !inline {
			return marks
		}
	}
	return ""
}

func spokenLine(line string) string {
	mark := lineMark.FindString(line)
	line = line[len(mark):]
	if strings.Contains(mark, "#") {
		line = headingEnd.ReplaceAllString(line, "")
	}
	line = address.ReplaceAllStringFunc(line, host)
	line = footnote.ReplaceAllString(line, "")
	for { // an image may be the text of a link
		plain := link.ReplaceAllString(line, "$1")
		if plain == line {
			break
		}
		line = plain
	}
	line = tag.ReplaceAllString(line, " ")
	if cells := strings.Trim(line, " |"); strings.HasPrefix(strings.TrimSpace(line), "|") {
		line = strings.Join(strings.FieldsFunc(cells, func(r rune) bool { return r == '|' }), ",")
	}
	return withoutEmphasis(line)
}

// host returns the host of an address, and the marks behind it, which are the
// sentence's.
func host(found string) string {
	bare := strings.TrimRight(found, ".,;:!?*_~'\"`>")
	tail := strings.TrimPrefix(found[len(bare):], ">")
	return address.ReplaceAllString(bare, "$1") + tail
}

// withoutEmphasis drops the marks of emphasis and code, and the backslashes
// before marks that are meant. A mark within a word or alone is meant too.
func withoutEmphasis(line string) string {
	var b strings.Builder
	before := ' '
	for line != "" {
		r, size := utf8.DecodeRuneInString(line)
		mark := line[:size]
		line = line[size:]
		switch r {
		case '\\':
			if line != "" && strings.ContainsRune(escapable, rune(line[0])) {
				mark, line = line[:1], line[1:]
			}
			b.WriteString(mark)
		case '`':
		case '*', '_', '~':
			rest := strings.TrimLeft(line, mark)
			mark += line[:len(line)-len(rest)]
			line = rest
			if meant(mark, before, first(line)) {
				b.WriteString(mark)
			}
		default:
			b.WriteString(mark)
		}
		before = r
	}
	return b.String()
}

// escapable is what a backslash makes an ordinary character (CommonMark 0.31, 2.4).
const escapable = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"

// meant reports whether marks between those two runes stand for themselves.
func meant(marks string, before, after rune) bool {
	switch {
	case unicode.IsSpace(before) && (unicode.IsSpace(after) || after == utf8.RuneError):
		return true
	case marks[0] == '_':
		return letter(before) && letter(after)
	}
	return marks == "~"
}

func letter(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }
