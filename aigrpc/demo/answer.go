package demo

import (
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"unicode"

	"parley/aigrpc/amandaai"
)

// An answer has at least and at most this many words.
const (
	wordsLeast = 30
	wordsMost  = 80
)

// answer is what the companion says to message after history, which does not
// hold it.
func answer(message string, history []*amandaai.Turn) string {
	a := &answering{message: message, heard: hear(message), memory: remember(message, history)}
	h := fnv.New32a()
	_, _ = h.Write([]byte(a.memory.seed)) // a hash takes all
	a.turn = int(h.Sum32()%1009) + a.memory.replies
	if a.heard.crisis {
		return strings.Join(a.crisis(), " ")
	}
	return a.compose()
}

// An answering is an answer in the making. Which of several sentences it takes
// goes round with the answers given, from a place of the chat's own.
type answering struct {
	message string
	heard   heard
	memory  memory
	turn    int

	sentences []sentence
}

// A sentence that is spare may be left out of an answer that grows too long.
type sentence struct {
	text  string
	spare bool
}

func (a *answering) first() bool { return a.memory.replies == 0 }

func (a *answering) name() string {
	if a.heard.name != "" {
		return a.heard.name
	}
	return a.memory.name
}

// pick returns one of texts, another one each turn.
func (a *answering) pick(texts []string) string { return texts[a.turn%len(texts)] }

// say adds a sentence that the answer needs.
func (a *answering) say(texts []string, args ...any) { a.add(false, texts, args...) }

func (a *answering) add(spare bool, texts []string, args ...any) {
	text := a.pick(texts)
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	a.sentences = append(a.sentences, sentence{text, spare})
}

func (a *answering) crisis() []string {
	if a.first() {
		return crisisFirst
	}
	return crisisLater[a.turn%len(crisisLater)]
}

func (a *answering) compose() string {
	a.open()
	var ask []string
	fill := closings
	switch h := a.heard; {
	case asksWho(h.words):
		if !a.first() { // the opening has said it
			a.say(selfReplies)
		}
		ask = selfQuestions
	case asksMemory(h.words):
		a.recall()
		ask = recallQuestions
	case only(h.words, thanks, "thank", "thanks"):
		a.say(thanksReplies)
		ask = thanksQuestions
	case only(h.words, farewells, "bye", "goodbye", "night", "later", "tomorrow", "go"):
		a.say(farewellReplies)
		ask = farewellQuestions
	case only(h.words, greetings, "hi", "hello", "hey", "hallo", "how", "morning", "evening", "afternoon", "day", "greetings"):
		a.say(greetingReplies)
		ask, fill = greetingQuestions, fillers
	default:
		a.respond()
		ask, fill = a.questions(), fillers
	}
	return a.fit(a.pick(ask), fill)
}

// open says hello and what this is, in the first answer, and takes up a name.
func (a *answering) open() {
	switch {
	case a.first() && a.name() != "":
		a.sentences = append(a.sentences, sentence{text: "Hello, " + a.name() + "."}, sentence{text: disclosure})
	case a.first():
		a.sentences = append(a.sentences, sentence{text: "Hello."}, sentence{text: disclosure})
	case a.heard.name != "":
		a.say(namesGiven, a.heard.name)
	}
	if a.memory.crisis {
		a.say(earlierCrisis)
	}
}

// respond reflects the message, names its feeling and links it to what was
// said before.
func (a *answering) respond() {
	if told := mirror(a.message); told != "" {
		a.add(true, reflections, told)
	} else if strange(a.message) {
		a.add(true, strangeWords)
	} else {
		a.add(true, listenings)
	}
	switch f := a.heard.feelings; {
	case len(f) > 0:
		if !a.first() {
			a.add(true, namings, f[0].noun)
		}
		a.add(true, f[0].heard)
	case strings.Contains(a.message, "?"):
		a.add(true, advices)
	}
	if a.memory.replies%2 == 1 && !a.memory.crisis {
		a.linkBack()
	}
	if a.memory.replies%3 == 2 && a.heard.name == "" && a.memory.name != "" {
		a.add(true, namesThanks, a.memory.name)
	}
}

// linkBack speaks of something that was said earlier.
func (a *answering) linkBack() {
	past := a.memory
	for _, f := range a.heard.feelings {
		if slices.Contains(past.feelings, f) {
			a.add(true, againFeelings, f.noun)
			return
		}
	}
	other := func(t *topic) bool { return !slices.Contains(a.heard.topics, t) }
	if i := slices.IndexFunc(past.topics, other); i >= 0 {
		a.add(true, earlierTopics, past.topics[i].label)
	} else if len(past.feelings) > 0 {
		a.add(true, earlierFeelings, past.feelings[0].noun)
	}
}

// recall tells what the companion knows of the other.
func (a *answering) recall() {
	past, name := a.memory, a.name()
	if name == "" && len(past.topics) == 0 && len(past.feelings) == 0 {
		a.say(recallsNothing)
		return
	}
	a.say(recalls)
	if name != "" {
		a.say(recallsName, name)
	}
	if len(past.topics) > 0 {
		labels := make([]string, 0, 3)
		for _, t := range past.topics[:min(len(past.topics), 3)] {
			labels = append(labels, t.label)
		}
		a.add(true, recallsTopic, list(labels))
	}
	if len(past.feelings) > 0 {
		a.add(true, recallsFeeling, past.feelings[0].noun)
	}
}

// questions are those that lead on from the message.
func (a *answering) questions() []string {
	if f := a.heard.feelings; len(f) > 0 && f[0].light {
		return lightQuestions
	}
	if a.memory.replies%3 == 2 {
		return questions
	}
	for i := range topics {
		if slices.Contains(a.heard.topics, &topics[i]) {
			return topics[i].ask
		}
	}
	return questions
}

// fit makes one text of the sentences and the question at their end, and of
// the right length, with some of fill.
func (a *answering) fit(question string, fill []string) string {
	length := func() int {
		n := len(strings.Fields(question))
		for _, s := range a.sentences {
			n += len(strings.Fields(s.text))
		}
		return n
	}
	for i := 0; length() < wordsLeast; i++ {
		a.sentences = append(a.sentences, sentence{text: fill[(a.turn+i)%len(fill)]})
	}
	for length() > wordsMost {
		i := len(a.sentences) - 1
		for i > 0 && !a.sentences[i].spare {
			i--
		}
		a.sentences = slices.Delete(a.sentences, i, i+1)
	}
	var text strings.Builder
	for _, s := range a.sentences {
		text.WriteString(s.text)
		text.WriteByte(' ')
	}
	return text.String() + question
}

// only reports whether words is a short message of known words, one of which
// is a key.
func only(words []string, known map[string]bool, keys ...string) bool {
	if len(words) == 0 || len(words) > 8 {
		return false
	}
	return !slices.ContainsFunc(words, func(w string) bool { return !known[w] }) &&
		slices.ContainsFunc(words, func(w string) bool { return slices.Contains(keys, w) })
}

func asksWho(words []string) bool {
	return containsAny(
		words, "who are you", "what are you", "are you a", "are you an", "are you real", "are you human",
		"are you chatgpt", "are you there really", "is this a bot", "is this a real",
	)
}

func asksMemory(words []string) bool {
	return containsAny(
		words, "what is my name", "what's my name", "do you remember", "remember my name", "remember me",
		"what did i say", "what did i tell you", "what do you know about me", "who am i",
	)
}

func containsAny(words []string, phrases ...string) bool {
	said := " " + strings.Join(words, " ") + " "
	return slices.ContainsFunc(phrases, func(p string) bool { return strings.Contains(said, " "+p+" ") })
}

// strange reports whether most of a message is in another script than
// English.
func strange(message string) bool {
	letters, latin := 0, 0
	for _, r := range message {
		if unicode.IsLetter(r) {
			letters++
			if unicode.Is(unicode.Latin, r) {
				latin++
			}
		}
	}
	return latin*2 < letters
}

// list joins words as in a sentence.
func list(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return strings.Join(words[:last], ", ") + " and " + words[last]
}
