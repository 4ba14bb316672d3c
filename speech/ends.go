package speech

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A verdict is what is known of a place in the text.
type verdict int

const (
	goesOn verdict = iota // the sentence does not end here
	over                  // it does
	unsure                // what follows will tell
)

const (
	// mostMarks is how many marks in a row can end a sentence; more of them are
	// a line to write on.
	mostMarks = 16
	// mostSpace is how much white space is looked past for the next word.
	mostSpace = 64
	// longestWord is how many letters the words have that are looked for.
	longestWord = 12
)

// judge says whether the sentence ends at the rune r at s.at, and where; or
// where to look on.
func (s *Splitter) judge(r rune, size int) (verdict, int) {
	if r == '\n' {
		if v := s.newline(s.at + size); v != goesOn {
			return v, s.solid
		}
	}
	if !stops(r) {
		return goesOn, s.at + size
	}
	m, end, known := s.marks()
	if !known {
		return unsure, 0
	}
	after, size := s.rune(end)
	if size == 0 {
		return unsure, 0
	}
	switch {
	case m.count > mostMarks, after == '\u00a0', after == '\u202f':
		return goesOn, end // a no-break space says that it goes on
	case unicode.IsSpace(after):
		return s.spaced(m, end), end
	case m.wide, (m.last == '!' || m.last == '?') && ideographic(after):
		if m.closed && after == 'と' {
			return goesOn, end // "…", he said
		}
		return over, end
	}
	return goesOn, end
}

// newline says whether the line that begins at next ends the sentence before it.
func (s *Splitter) newline(next int) verdict {
	if s.row {
		return over
	}
	line := bytes.TrimLeft(s.text[next:], " \t\r")
	switch {
	case len(s.text)-next-len(line) > mostSpace:
		return over
	case len(line) == 0:
		return unsure
	}
	switch mark := line[0]; mark {
	case '\n', '>', '|':
		return over
	case '#':
		const deepest = 6
		n, _ := run(line[:min(len(line), deepest)], mark)
		return spaceFollows(line[n:])
	case '-', '*', '+', '`', '~':
		return marked(line, mark)
	case bullet[0]:
		if !utf8.FullRune(line) {
			return unsure
		}
		if bytes.HasPrefix(line, []byte(bullet)) {
			return over
		}
	}
	if line[0] >= '0' && line[0] <= '9' {
		return numbered(line)
	}
	return goesOn
}

const bullet = "•"

// marked says whether a line that begins with that mark begins as an entry of a
// list, a fence, or a rule across the page.
func marked(line []byte, mark byte) verdict {
	const ruleOrFence = 3
	n, ended := run(line[:min(len(line), ruleOrFence)], mark)
	switch fence := mark == '`' || mark == '~'; {
	case n == ruleOrFence:
		return over
	case n == len(line) && !ended:
		return unsure
	case n == 1 && !fence:
		return spaceFollows(line[1:])
	}
	return goesOn
}

// numbered says whether a line begins as an entry of a numbered list.
func numbered(line []byte) verdict {
	const mostDigits = 3
	digits := 0
	for digits < len(line) && digits <= mostDigits && line[digits] >= '0' && line[digits] <= '9' {
		digits++
	}
	switch {
	case digits > mostDigits:
		return goesOn
	case digits == len(line):
		return unsure
	case line[digits] == '.', line[digits] == ')':
		return spaceFollows(line[digits+1:])
	}
	return goesOn
}

func spaceFollows(text []byte) verdict {
	switch {
	case len(text) == 0:
		return unsure
	case text[0] == ' ', text[0] == '\t', text[0] == '\n':
		return over
	}
	return goesOn
}

// marks are what a sentence may end with, one behind the other.
type marks struct {
	first, last rune // of those that stop a sentence
	dots        int  // full stops
	count       int  // of those and others
	closed      bool // a quotation or bracket is closed behind them
	wide        bool // the last one needs no white space behind it
}

// marks returns those that begin at s.at, and where they end, if that is known.
func (s *Splitter) marks() (m marks, end int, known bool) {
	end = s.at
	for m.count <= mostMarks {
		r, size := s.rune(end)
		switch {
		case size == 0:
			return m, end, false
		case stops(r):
			if m.first == 0 {
				m.first = r
			}
			m.last, m.wide = r, wide(r)
			if r == '.' {
				m.dots++
			}
		case m.wide && opensToo(r):
			return m, end, true
		case closes(r):
			m.closed = true
		case !decorates(r):
			return m, end, true
		}
		m.count++
		end += size
	}
	return m, end, true
}

// spaced says whether the marks before end, with white space behind them, end
// the sentence.
func (s *Splitter) spaced(m marks, end int) verdict {
	ellipsis := m.dots > 1 || m.first == '…'
	if m.dots == 1 && m.first == '.' {
		if v := s.fullStop(end); v != over {
			return v
		}
	}
	if !ellipsis && !m.closed {
		return over
	}
	// "Really?" she asked. Well... perhaps.
	return s.judgeNext(end, 1, func(next string) bool { return !unicode.IsLower(first(next)) })
}

// fullStop says whether the full stop at s.at can end a sentence, by the word
// before it, and the one that follows the white space at end.
func (s *Splitter) fullStop(end int) verdict {
	before := string(s.text[s.begin:s.at])
	word := before[strings.LastIndexFunc(before, unicode.IsSpace)+1:]
	word = strings.TrimLeftFunc(word, func(r rune) bool { return !letter(r) })
	before = strings.TrimSuffix(before, word)
	lower := strings.ToLower(word)
	tail := lower[strings.LastIndexFunc(lower, func(r rune) bool { return !unicode.IsLetter(r) })+1:]
	switch {
	case word == "":
		return over
	case digits(word):
		return s.number(word, before, end)
	case endingAbbreviations[tail], endingAbbreviations[lower]:
		return s.judgeNext(end, 1, func(next string) bool { return !unicode.IsLower(first(next)) })
	case numberAbbreviations[tail]:
		return s.judgeNext(end, 1, func(next string) bool { return !unicode.IsDigit(first(next)) })
	case openAbbreviations[tail]:
		return goesOn
	case !initials(word):
		return over
	case word == "I" && strings.ContainsFunc(before, letter), word != lower && len(word) > 1:
		return s.judgeNext(end, longestWord, func(next string) bool { return starters[next] })
	}
	return goesOn
}

// number says whether a full stop behind a number makes it an ordinal, or the
// entry of a list.
func (s *Splitter) number(word, before string, end int) verdict {
	const longestOrdinal = 2
	switch {
	case !strings.ContainsFunc(before, letter):
		return goesOn // 1. the first of a list
	case len(word) > longestOrdinal:
		return over
	}
	before = strings.ToLower(strings.TrimRightFunc(before, unicode.IsSpace))
	if ordinalLeads[before[strings.LastIndexFunc(before, unicode.IsSpace)+1:]] {
		return goesOn
	}
	return s.judgeNext(end, longestWord, func(next string) bool {
		return !unicode.IsLower(first(next)) && !counted[next]
	})
}

// judgeNext is the verdict by the beginning of the word that follows the white
// space at i: so many letters of it, or all.
func (s *Splitter) judgeNext(i, letters int, ends func(next string) bool) verdict {
	next, known := s.next(i, letters)
	switch {
	case !known:
		return unsure
	case ends(next):
		return over
	}
	return goesOn
}

// next returns the beginning of the word that follows the white space at i,
// without what opens before it, and whether it is known: so many letters, or one
// digit. It returns "" if an empty line comes first, or no word.
func (s *Splitter) next(i, letters int) (word string, known bool) {
	newlines, n := 0, 0
	for space := 0; space < mostSpace; {
		r, size := s.rune(i)
		switch {
		case size == 0:
			return "", false
		case unicode.IsLetter(r):
			word += string(r)
			if n++; n == letters {
				return word, true
			}
		case n > 0:
			return word, true
		case unicode.IsDigit(r):
			return string(r), true
		case r == '\n':
			if newlines++; newlines > 1 {
				return "", true
			}
			space++
		case unicode.IsSpace(r), opens(r):
			space++
		default:
			return "", true
		}
		i += size
	}
	return "", true
}

func first(word string) rune {
	r, _ := utf8.DecodeRuneInString(word)
	return r
}

func digits(word string) bool {
	return !strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsDigit(r) })
}

// initials reports whether a word is one letter, or a row of short pieces with
// dots between them, as U.S, e.g or Ph.D.
func initials(word string) bool {
	pieces := strings.Split(word, ".")
	most := 2
	if len(pieces) == 1 {
		most = 1
	}
	for _, piece := range pieces {
		n := utf8.RuneCountInString(piece)
		if n == 0 || n > most || strings.ContainsFunc(piece, func(r rune) bool { return !unicode.IsLetter(r) || ideographic(r) }) {
			return false
		}
	}
	return true
}
