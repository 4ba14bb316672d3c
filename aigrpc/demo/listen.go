package demo

import (
	"slices"
	"strings"
	"unicode"

	"parley/aigrpc/amandaai"
)

// A sense is what a word means when rest follows it.
type sense struct {
	rest    []string
	feeling *feeling
	topic   *topic
	crisis  bool
}

// vocabulary holds the senses of all phrases under their first word.
var vocabulary = func() map[string][]sense {
	v := make(map[string][]sense)
	add := func(phrases []string, s sense) {
		for _, p := range phrases {
			w := strings.Fields(p)
			s.rest = w[1:]
			v[w[0]] = append(v[w[0]], s)
		}
	}
	for i := range feelings {
		add(feelings[i].words, sense{feeling: &feelings[i]})
	}
	for i := range topics {
		add(topics[i].words, sense{topic: &topics[i]})
	}
	add(crisis, sense{crisis: true})
	return v
}()

// heard is what a message says, in the order in which it says it.
type heard struct {
	words    []string // lower case, without punctuation
	feelings []*feeling
	topics   []*topic
	name     string
	crisis   bool
}

func hear(message string) heard {
	h := heard{words: wordsOf(message), name: nameIn(message)}
	for i, w := range h.words {
		for _, s := range vocabulary[w] {
			if !startsWith(h.words[i+1:], s.rest) {
				continue
			}
			switch {
			case s.crisis:
				h.crisis = true
			case s.topic != nil:
				h.topics = appendNew(h.topics, s.topic)
			case !negated(h.words[:i]):
				h.feelings = appendNew(h.feelings, s.feeling)
			}
		}
	}
	return h
}

// memoryBytes is how much of each earlier message is gone through.
const memoryBytes = 4000

// A memory is what was said in a chat before: the latest first.
type memory struct {
	feelings []*feeling
	topics   []*topic
	name     string
	crisis   bool
	replies  int // how often the companion has answered
	seed     string
}

func remember(message string, history []*amandaai.Turn) memory {
	m := memory{seed: message}
	for _, t := range slices.Backward(history) {
		switch t.GetRole() {
		case "user":
		case "assistant":
			m.replies++
			continue
		default:
			continue
		}
		said := t.GetContent()
		m.seed = said
		h := hear(said[:min(len(said), memoryBytes)])
		for _, f := range h.feelings {
			m.feelings = appendNew(m.feelings, f)
		}
		for _, t := range h.topics {
			m.topics = appendNew(m.topics, t)
		}
		if m.name == "" {
			m.name = h.name
		}
		m.crisis = m.crisis || h.crisis
	}
	return m
}

// wordsOf returns the words of s in lower case, with what is often written
// without its apostrophe put right.
func wordsOf(s string) []string {
	words := strings.FieldsFunc(strings.ToLower(straight(s)), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '\''
	})
	out := words[:0:0]
	for _, w := range words {
		switch w = strings.Trim(w, "'"); w {
		case "":
		case "dont", "cant", "didnt", "doesnt", "isnt", "wasnt":
			out = append(out, w[:len(w)-1]+"'t")
		case "im", "ive":
			out = append(out, "i'"+w[1:])
		case "wanna":
			out = append(out, "want", "to")
		default:
			out = append(out, w)
		}
	}
	return out
}

// straight makes curly apostrophes straight.
func straight(s string) string { return strings.ReplaceAll(s, "’", "'") }

// nameIn returns the name by which somebody introduces himself, or "".
func nameIn(message string) string {
	fields := strings.Fields(straight(message))
	for i, f := range fields {
		var name string
		switch next := fields[i+1:]; {
		case foldedPhrase(f, next, "my", "name", "is"), foldedPhrase(f, next, "i", "am", "called"):
			name = fieldAt(next, 2)
		case foldedPhrase(f, next, "my", "name's"), foldedPhrase(f, next, "i'm", "called"):
			name = fieldAt(next, 1)
		case foldedPhrase(f, next, "call", "me"):
			// "call me when you can" gives no name, "call me Anna" does.
			if name = fieldAt(next, 1); strings.ToLower(name) == name {
				name = ""
			}
		}
		if name = asName(name); name != "" {
			return name
		}
	}
	return ""
}

// asName returns field as a name, or "" if it is none.
func asName(field string) string {
	name := strings.TrimFunc(field, func(r rune) bool { return !unicode.IsLetter(r) })
	runes := []rune(name)
	if len(runes) == 0 || len(runes) > 30 || notNames[strings.ToLower(name)] {
		return ""
	}
	for _, r := range runes {
		if !unicode.IsLetter(r) && !unicode.IsMark(r) && r != '\'' && r != '-' {
			return ""
		}
	}
	runes[0] = unicode.ToUpper(runes[0])
	return string(runes)
}

func fieldAt(fields []string, i int) string {
	if i < len(fields) {
		return fields[i]
	}
	return ""
}

func foldedPhrase(first string, next []string, phrase ...string) bool {
	if len(next) < len(phrase) || !strings.EqualFold(first, phrase[0]) {
		return false
	}
	for i, p := range phrase[1:] {
		if !strings.EqualFold(next[i], p) {
			return false
		}
	}
	return true
}

// negated reports whether the words before a feeling deny it.
func negated(before []string) bool {
	return slices.ContainsFunc(before[max(0, len(before)-3):], func(w string) bool { return negations[w] })
}

func startsWith(words, start []string) bool {
	return len(words) >= len(start) && slices.Equal(words[:len(start)], start)
}

func appendNew[T comparable](s []T, v T) []T {
	if slices.Contains(s, v) {
		return s
	}
	return append(s, v)
}
