package mail

import (
	"crypto/rand"
	netmail "net/mail"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
)

// A message is a letter in its envelope.
type message struct {
	letter

	from netmail.Address
	to   string // an addr-spec that checkRecipient has passed
}

// checkRecipient passes a plain address of ASCII characters, as accounts have
// them, and refuses whatever else the database may hold: names, lists, quotes,
// parameters of SMTP, line ends.
func checkRecipient(s string) error {
	a, err := netmail.ParseAddress(s)
	plain := !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
	if err != nil || a.Address != s || !plain {
		return &fault{step: "recipient", cause: "not an address that mail can be sent to", refused: true}
	}
	return nil
}

// mime is the message as it goes over the wire (RFC 5322): both texts as
// alternatives, and no answers from machines (RFC 3834). Each call makes
// another Message-ID: a letter that is sent again may bring another link, and
// a reader's program must not take it for the first one.
func (m message) mime() *gomail.Msg {
	_, domain, _ := strings.Cut(m.from.Address, "@")
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(&m.from)
	msg.ToMailAddress(&netmail.Address{Address: m.to})
	msg.Subject(m.subject)
	msg.SetDateWithValue(time.Now().UTC())
	msg.SetMessageIDWithValue(rand.Text() + "@" + domain)
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(gomail.TypeTextPlain, m.text)
	msg.AddAlternativeString(gomail.TypeTextHTML, m.html)
	return msg
}
