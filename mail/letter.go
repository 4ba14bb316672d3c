package mail

import (
	"embed"
	"errors"
	htmltemplate "html/template"
	"io"
	"net/url"
	"path"
	"strings"
	"text/template"
	"unicode"

	"parley/models"
)

// service is what users know the program by.
const service = "Parley"

// errUnknownKind: a later version of the program has left a mail that this one
// has no words for. It is left to that one.
var errUnknownKind = errors.New("no template for mail of this kind")

// A letter is a mail in words. Its text says all that its HTML says.
type letter struct {
	subject, text, html string
}

// A view is what the templates see.
type view struct {
	Service string // the name of the service
	Host    string // where it is, as people say it
	URL     string // where it is, as a link
	At      string // when it happened
	Link    string // what resets the password, where that is what the mail is for
	Subject string // in HTML alone
	data    map[string]string
}

// Data is what the outbox holds under a name, or "". It may come from a
// stranger, so it is one short line, and nothing in it that cannot be seen;
// html/template escapes it beside.
func (v view) Data(name string) string {
	const most = 100
	words := strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsGraphic(r) || r == unicode.ReplacementChar:
			return -1
		}
		return r
	}, v.data[name]))
	line := []rune(strings.Join(words, " "))
	if len(line) > most {
		line = append(line[:most-1], '…')
	}
	return string(line)
}

// templateFiles are the words, a pair of files a kind: kind.txt defines
// "subject" and "text", kind.html defines "html". What letters have in common is
// in layout.txt and layout.html.
//
//go:embed templates
var templateFiles embed.FS

// A pair renders mail of one kind.
type pair struct {
	text *template.Template
	html *htmltemplate.Template
}

// pairs are the templates by kind. They are part of the program: one that is
// wrong panics at start.
var pairs = func() map[string]pair {
	all := make(map[string]pair)
	for _, kind := range []string{models.MailResetPassword, models.MailPasswordChanged, models.MailEmailChanged, models.MailSessionReused} {
		file := path.Join("templates", kind)
		all[kind] = pair{
			text: template.Must(template.ParseFS(templateFiles, "templates/layout.txt", file+".txt")),
			html: htmltemplate.Must(htmltemplate.ParseFS(templateFiles, "templates/layout.html", file+".html")),
		}
	}
	return all
}()

// write puts a mail into words. link is for mail that resets a password.
func write(m models.Mail, public *url.URL, link string) (letter, error) {
	templates, known := pairs[m.Kind]
	if !known {
		return letter{}, errUnknownKind
	}
	v := view{
		Service: service,
		Host:    public.Host,
		URL:     public.String(),
		At:      m.CreatedAt.UTC().Format("2 January 2006 at 15:04 UTC"),
		Link:    link,
		data:    m.Data,
	}
	subject, err1 := render(templates.text, "subject", v)
	text, err2 := render(templates.text, "layout.txt", v)
	v.Subject = subject
	html, err3 := render(templates.html, "layout.html", v)
	return letter{subject, wrap(text), html}, errors.Join(err1, err2, err3)
}

// render executes a template of either kind.
func render(t interface {
	ExecuteTemplate(w io.Writer, name string, data any) error
}, name string, v view,
) (string, error) {
	var out strings.Builder
	err := t.ExecuteTemplate(&out, name, v)
	return out.String(), err
}

// wrap breaks lines between words, so that none is longer than a screen of old
// is wide, but for words that are longer by themselves, such as links.
func wrap(text string) string {
	const most = 72
	var out strings.Builder
	for line := range strings.Lines(text) {
		for len(line) > most {
			end := strings.LastIndexByte(line[:most+1], ' ')
			if end <= 0 {
				break
			}
			out.WriteString(line[:end] + "\n")
			line = line[end+1:]
		}
		out.WriteString(line)
	}
	return out.String()
}
