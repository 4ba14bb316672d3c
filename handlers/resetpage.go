package handlers

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"parley/auth"
)

//go:embed resetpage.html
var resetPageText string

var resetPage = template.Must(template.New("reset-password").Parse(resetPageText))

// pagePolicy lets the page use its own style and send its form here, and
// nothing else: no script, and no frame around it that could steal a click.
var pagePolicy = fmt.Sprintf("default-src 'none'; style-src 'sha256-%s'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	styleHash(resetPageText))

// styleHash is the hash of what stands in the style element of a page (Content
// Security Policy Level 3, section 2.3.1).
func styleHash(page string) string {
	_, style, _ := strings.Cut(page, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// What the page says. With a Token it has a form.
type resetPageData struct {
	Heading string
	Said    string
	Token   string
}

const chooseHeading = "Choose a new password"

// showReset answers GET /reset-password, where the link in the mail leads. It
// uses nothing up, so that a program which looks at the links of mails does no
// harm.
func (s *server) showReset(w http.ResponseWriter, r *http.Request) error {
	token := r.URL.Query().Get("token")
	if _, err := s.resetOf(r.Context(), token); err != nil {
		return err
	}
	showPage(w, http.StatusOK, resetPageData{Heading: chooseHeading, Token: token})
	return nil
}

// submitReset answers POST /reset-password, the page's form. The token in it is
// all the authority there is: no cookie counts, so another site that sends the
// form has nothing to gain.
func (s *server) submitReset(w http.ResponseWriter, r *http.Request) error {
	token, password, err := readResetForm(r)
	if err != nil {
		return err
	}
	err = s.reset(r, token, password)
	if errors.Is(err, auth.ErrWeakPassword) {
		p := problemOf(err)
		showPage(w, p.status, resetPageData{Heading: chooseHeading, Said: p.detail, Token: token})
		return nil
	}
	if err != nil {
		return err
	}
	showPage(w, http.StatusOK, resetPageData{Heading: "Done", Said: passwordReset})
	return nil
}

// readResetForm reads the form. An empty password is a weak one.
func readResetForm(r *http.Request) (token, password string, err error) {
	types := r.Header.Values("Content-Type")
	if len(types) != 1 {
		return "", "", errNotForm
	}
	if mediaType, _, err := mime.ParseMediaType(types[0]); err != nil || mediaType != "application/x-www-form-urlencoded" {
		return "", "", errNotForm
	}
	body, err := readBody(r)
	if err != nil {
		return "", "", err
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["token"]) != 1 || len(form["password"]) != 1 {
		return "", "", errNotForm
	}
	return form.Get("token"), form.Get("password"), nil
}

// showProblem answers with p as a page.
func showProblem(w http.ResponseWriter, p *problem) {
	showPage(w, p.status, resetPageData{Heading: "That did not work", Said: p.detail})
}

func showPage(w http.ResponseWriter, status int, data resetPageData) {
	var page bytes.Buffer
	if err := resetPage.Execute(&page, data); err != nil {
		panic(err) // the template takes any strings
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	protectPage(h, pagePolicy)
	w.WriteHeader(status)
	w.Write(page.Bytes()) //nolint:errcheck // the client may be gone
}
