// Package speech makes text fit to be read aloud: it finds the sentences of a
// text that still grows, and strips what Markdown adds to the words. It never
// knows who speaks, or what about. Its one invariant: the sentences, and what
// is left, are the text, byte for byte, in whatever pieces it came.
package speech

import (
	"unicode"
	"unicode/utf8"
)

const (
	// mostRunes is how long a sentence gets before it is cut at a pause.
	mostRunes = 300
	// fewestRunes is how much of it is left before the cut, where there is a
	// choice.
	fewestRunes = 150

	noFence = -1
)

// A Splitter finds the sentences of a text that grows. The zero Splitter is
// ready. It is for one goroutine, and keeps no more than what follows the last
// sentence.
//
// A sentence is over when its end is sure: at a full stop, a question or an
// exclamation mark with white space behind it, at such a mark of a script that
// sets none, at an empty line, and before a heading, a list's next entry or a
// fence. A mark that may belong to an abbreviation, an ordinal or an ellipsis
// waits for the word that follows. What gets longer than some 300 characters is
// cut at a pause. A fenced block of code is one sentence, however long.
//
// The white space between two sentences leads the second one.
type Splitter struct {
	text    []byte // what follows the last sentence
	midline bool   // text follows a sentence on the same line

	begin int  // the first byte of text that is no white space
	at    int  // where the search goes on
	solid int  // the end of what is no white space before at
	runes int  // in text[begin:at]
	fence int  // marks that open a fenced block, 0 outside of one, noFence where it only seemed one
	row   bool // the line ends the sentence, as of a heading or a table
}

// Add returns the sentences that are complete with text at the end of what came
// before, in their order.
func (s *Splitter) Add(text string) []string {
	s.text = append(s.text, text...)
	var sentences []string
	for {
		end := s.find()
		if end == 0 {
			return sentences
		}
		sentences = append(sentences, string(s.text[:end]))
		*s = Splitter{text: s.text[end:], midline: true}
	}
}

// Rest returns what follows the last sentence: at the end of the text, the last
// one itself, if it is not only white space.
func (s *Splitter) Rest() string { return string(s.text) }

// find returns where the first sentence of the text ends, 0 if that is not sure.
func (s *Splitter) find() int {
	if s.at == s.begin && !s.start() {
		return 0
	}
	if s.fence > 0 {
		return s.fenced()
	}
	for {
		r, size := s.rune(s.at)
		if size == 0 {
			return 0
		}
		verdict, end := s.judge(r, size)
		switch verdict {
		case unsure:
			return 0
		case over:
			return end
		}
		s.runes += utf8.RuneCount(s.text[s.at:end])
		s.at = end
		if !unicode.IsSpace(r) {
			s.solid = s.at
		}
		if s.runes >= mostRunes {
			return s.begin + cut(s.text[s.begin:s.at])
		}
	}
}

// start finds where the words begin and what kind of line it is. It reports
// whether both are known.
func (s *Splitter) start() bool {
	for {
		r, size := s.rune(s.begin)
		if size == 0 {
			s.at = s.begin
			return false
		}
		if !unicode.IsSpace(r) {
			break
		}
		if r == '\n' {
			s.midline = false
		}
		s.begin += size
	}
	s.at, s.solid = s.begin, s.begin
	if s.midline {
		return true
	}
	switch first := s.text[s.begin]; first {
	case '`', '~':
		n, ended := run(s.text[s.begin:], first)
		if !ended && n < mostMarks {
			return false
		}
		if n >= 3 && s.fence != noFence {
			s.fence = min(n, mostMarks)
		}
	case '#', '|':
		s.row = true
	}
	return true
}

// fenced returns where a fenced block ends: after the marks that close it, which
// stand alone on their line (CommonMark 0.31, 4.5).
func (s *Splitter) fenced() int {
	mark := s.text[s.begin]
	for ; s.at < len(s.text); s.at++ {
		switch {
		case s.text[s.at] == '\n':
			s.row = true // the first line is over
		case mark == '`' && !s.row && s.text[s.at] == mark && s.at >= s.begin+s.fence:
			// Code within a line has as many marks behind it.
			s.fence, s.at = noFence, s.begin
			return s.find()
		}
		if s.text[s.at] != '\n' {
			continue
		}
		line := s.text[s.at+1:]
		indent, _ := run(line, ' ')
		n, _ := run(line[indent:], mark)
		after, _ := run(line[indent+n:], ' ')
		end := indent + n + after
		if end < len(line) && line[end] == '\r' {
			end++
		}
		switch {
		case indent > mostSpace, after > mostSpace:
		case end < len(line):
			if n >= s.fence && line[end] == '\n' {
				return s.at + 1 + indent + n
			}
		case n >= s.fence, end == indent+n:
			return 0 // the line may become the last one
		}
	}
	return 0
}

// rune returns the rune at i and its size, 0 where the text does not have all of
// it.
func (s *Splitter) rune(i int) (rune, int) {
	if i >= len(s.text) || !utf8.FullRune(s.text[i:]) {
		return 0, 0
	}
	return utf8.DecodeRune(s.text[i:])
}

// run returns how many of that byte text begins with, and whether something else
// follows.
func run(text []byte, of byte) (n int, ended bool) {
	for n < len(text) && text[n] == of {
		n++
	}
	return n, n < len(text)
}

// cut returns how much of a text that is too long makes a piece of its own: up
// to its last pause, or word, or character.
func cut(text []byte) int {
	var clause, word, whole int
	runes, before := 0, ' '
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		after, _ := utf8.DecodeRune(text[i+size:])
		if runes++; runes >= fewestRunes {
			switch {
			case pauses(r) && (unicode.IsSpace(after) || wide(r)):
				clause = i + size
			case unicode.IsSpace(r):
				word = i
			}
		}
		// A character may be several runes: those that join or mark stay with
		// what they stand behind.
		if i > 0 && !joins(r) && before != zeroWidthJoiner {
			whole = i
		}
		before = r
		i += size
	}
	for _, end := range []int{clause, word, whole} {
		if end > 0 {
			return end
		}
	}
	return len(text)
}
