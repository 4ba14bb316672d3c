// Package provider is what the AI providers share that ask a model's server
// over HTTP: a chat as a conversation, the answer on its way out, the exchange
// with the server, and what its failure means for a reply. It never knows which
// server is asked or how a request looks, and logs nothing. Its one invariant:
// an error holds neither a key nor anything that was said, by the user, the
// model or the server.
package provider

import (
	"net/url"
	"strings"

	"parley/aigrpc/amandaai"
)

// DefaultSystemPrompt makes a kind companion of a model.
const DefaultSystemPrompt = `You are a kind and attentive companion in a chat. ` +
	`Listen first: take up what you were told in your own words before you offer anything. ` +
	`Answer in the language you are written to in, warmly, plainly and briefly, and ask one question back where it helps. ` +
	`You are a computer program; say so whenever you are asked. ` +
	`You are no doctor, therapist or lawyer: where one is needed, say it and help to find the way there. ` +
	`When somebody may be in danger, take it seriously and stay with them: ask them to call their emergency number, a crisis line or a person they trust right away.`

// SystemPrompt is the prompt that a setting stands for: the default where it is
// empty, and none where it is blank.
func SystemPrompt(setting string) string {
	if setting == "" {
		return DefaultSystemPrompt
	}
	return strings.TrimSpace(setting)
}

// A Turn is what one side said until the other side's next word.
type Turn struct {
	Assistant bool // else the user
	Text      string
}

// Conversation is a chat as models want it: what was said and then message,
// each side in turn. An empty turn, of a reply that failed before its first
// word, is left out, and what one side said twice in a row becomes one turn:
// the templates of many models refuse anything else.
func Conversation(history []*amandaai.Turn, message string) []Turn {
	turns := make([]Turn, 0, len(history)+1)
	say := func(assistant bool, text string) {
		last := len(turns) - 1
		switch {
		case text == "":
		case last >= 0 && turns[last].Assistant == assistant:
			turns[last].Text += "\n\n" + text
		default:
			turns = append(turns, Turn{assistant, text})
		}
	}
	for _, t := range history {
		say(t.GetRole() == roleAssistant, t.GetContent())
	}
	say(false, message)
	return turns
}

const roleAssistant = "assistant"

// Recent is the later half of a history at the most, by its bytes, and begins
// with a word of the user's.
func Recent(history []*amandaai.Turn) []*amandaai.Turn {
	var size, kept int
	for _, t := range history {
		size += len(t.GetContent())
	}
	from := len(history)
	for i := len(history) - 1; i >= 0; i-- {
		kept += len(history[i].GetContent())
		if kept > size/2 {
			break
		}
		if history[i].GetRole() != roleAssistant {
			from = i
		}
	}
	return history[from:]
}

// IsAddress reports whether a base URL is one that can be asked.
func IsAddress(base string) bool {
	u, err := url.Parse(base)
	return err == nil && u.Host != "" && (u.Scheme == "http" || u.Scheme == "https")
}

// IsKey reports whether a header can hold a key: none at all is one too.
func IsKey(key string) bool {
	return !strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' })
}
