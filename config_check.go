package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/mail"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/aigrpc"
	"parley/auth"
)

// check notes what is wrong with the settings beyond their spelling.
func (c *configuration) check() {
	c.checkListening()
	c.checkDatabase()
	c.checkKeys()
	c.checkPasswords()
	c.checkMail()
	c.checkAdmin()
	c.checkBackend()
	c.checkBackendCredentials()
	c.checkTimes()
	c.checkObservation()
	if c.LimitStreams < 0 {
		c.fault("LIMIT_STREAMS", "%d is less than nothing; use 0 for any number, or more", c.LimitStreams)
	}
	if c.DailyTokenLimit != 0 && c.DailyTokenLimit <= c.reserveTokens() {
		c.fault("DAILY_TOKEN_LIMIT", "%d is too few for a message and its answer, for which alone %d are set aside; use more, or 0 for any number", c.DailyTokenLimit, c.reserveTokens())
	}
	if c.LogFormat != "" && c.LogFormat != "json" && c.LogFormat != "text" {
		c.fault("LOG_FORMAT", "%q is not a format; use json or text", c.LogFormat)
	}
}

func (c *configuration) checkListening() {
	if c.Env != "development" && c.Env != "production" {
		c.fault("ENV", "%q is not known; use development or production", c.Env)
	}
	if !isHost(c.Host) {
		c.fault("HOST", "%q is not a host; write a name or an address without scheme and port", c.Host)
	}
	if c.Port < 0 || c.Port > 65535 {
		c.fault("PORT", "%d is not a port; use 0 to 65535", c.Port)
	}
	c.checkPublicURL()
	c.checkTLS()
	if c.MaxConnections < 0 {
		c.fault("MAX_CONNECTIONS", "%d is less than nothing; use 0 for any number, or more", c.MaxConnections)
	}
	if c.Production() && slices.Contains(c.CORSOrigins, "*") {
		c.fault("CORS_ORIGINS", "* lets every page on the web call the API, which ENV=production refuses; name the origins")
	}
}

func (c *configuration) checkPublicURL() {
	if c.PublicURL == "" {
		if c.Production() {
			c.fault("PUBLIC_URL", "is not set, and ENV=production asks for it; give the address that clients use, such as https://chat.example.org")
		}
		return
	}
	u, err := url.Parse(c.PublicURL)
	switch {
	case err != nil || !isServiceAddress(u) || strings.Contains(c.PublicURL, "#"):
		c.fault("PUBLIC_URL", "is not an address of a service; write one such as https://chat.example.org")
		return
	case c.Production() && u.Scheme != "https":
		c.fault("PUBLIC_URL", "%q is not https, which ENV=production asks for", c.PublicURL)
	}
	// The scheme is written in lower case then, as it is asked for elsewhere.
	c.PublicURL = strings.TrimRight(u.String(), "/")
}

// isServiceAddress reports whether a path can be put behind u, and what comes of
// it be opened in a browser: http or https, a host with or without a port, and
// maybe a path. A host with other letters than ASCII is written in its xn-- form.
func isServiceAddress(u *url.URL) bool {
	ascii := strings.HasPrefix(u.String(), u.Scheme+"://"+u.Host) // what is none would be escaped
	return (u.Scheme == "http" || u.Scheme == "https") && isHost(u.Hostname()) && isPort(u.Port()) && ascii &&
		u.User == nil && u.RawQuery == "" && !u.ForceQuery
}

func (c *configuration) checkDatabase() {
	if c.DatabaseMaxConns < 1 {
		c.fault("DATABASE_MAX_CONNS", "%d is too few; use 1 or more", c.DatabaseMaxConns)
	}
	if path, ok := c.sqlitePath(); ok {
		if path == "" || path == ":memory:" || strings.ContainsAny(c.DatabaseURL, "?#") {
			c.fault("DATABASE_URL", "names no file; write sqlite://parley.db, or sqlite:///var/lib/parley/parley.db, and percent-encode what is special in it")
		}
		return
	}
	// Neither the value nor what url.Parse says of it: both may hold a password.
	u, err := url.Parse(c.DatabaseURL)
	switch {
	case err != nil:
		c.fault("DATABASE_URL", "is not a URL; percent-encode what is special in the user and the password")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		c.fault("DATABASE_URL", "is of no database that is known; write sqlite://parley.db or postgres://user:password@host/name")
	}
}

// checkKeys asks for a key set where none may be made up, and tries the one
// that is given.
func (c *configuration) checkKeys() {
	_, sqlite := c.sqlitePath()
	switch {
	case c.JWTKeys != "" && c.JWTKeysFile != "":
		c.fault("JWT_KEYS", "is set, and JWT_KEYS_FILE too; give one of them")
	case c.JWTKeys != "":
		if _, err := auth.NewKeyRing([]byte(c.JWTKeys)); err != nil {
			c.fault("JWT_KEYS", "%s", withoutPackage(err))
		}
	case c.JWTKeysFile != "":
		set, err := os.ReadFile(c.JWTKeysFile)
		if err == nil {
			_, err = auth.NewKeyRing(set)
		}
		if err != nil {
			c.fault("JWT_KEYS_FILE", "%s", withoutPackage(err))
		}
	case c.Production():
		c.fault("JWT_KEYS_FILE", "is not set, and ENV=production signs with no key that was made up at start; %s", howToMakeKeys)
	case !sqlite:
		c.fault("JWT_KEYS_FILE", "is not set, and replicas on PostgreSQL must share their keys; %s", howToMakeKeys)
	}
}

const howToMakeKeys = "make a set, (umask 077; parley keys new > keys.json), and set JWT_KEYS_FILE=keys.json"

func (c *configuration) checkPasswords() {
	// Each parameter is tried beside harmless others, so that a bad one speaks
	// for itself alone.
	p := c.argon2()
	if err := (auth.Argon2Params{MemoryKiB: 8 * 255, Time: 1, Threads: p.Threads}).Validate(); err != nil {
		c.fault("PASSWORD_THREADS", "%s", withoutPackage(err))
		p.Threads = 1
	}
	if err := (auth.Argon2Params{MemoryKiB: 8, Time: p.Time, Threads: 1}).Validate(); err != nil {
		c.fault("PASSWORD_TIME", "%s", withoutPackage(err))
	}
	if err := (auth.Argon2Params{MemoryKiB: p.MemoryKiB, Time: 1, Threads: p.Threads}).Validate(); err != nil {
		c.fault("PASSWORD_MEMORY_KIB", "%s", withoutPackage(err))
	}
	switch {
	case c.PasswordWorkers < 0:
		c.fault("PASSWORD_WORKERS", "%d is too few; use 0 to go by the processors, or more", c.PasswordWorkers)
	case c.PasswordWorkers > maxPasswordWorkers:
		c.fault("PASSWORD_WORKERS", "%d is too many; use 0 to go by the processors, or %d at the most", c.PasswordWorkers, maxPasswordWorkers)
	}
}

// maxPasswordWorkers is far more than any machine hashes at once. There is a little
// of the memory for each from the start.
const maxPasswordWorkers = 1000

// withoutPackage is what an error of another package says to an operator, who
// knows settings and no packages, on one line.
func withoutPackage(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", ", ")
	for _, name := range []string{"auth: ", "openai: ", "gemini: ", "service: ", "local: "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

func (c *configuration) checkMail() {
	const example = "smtp://user:password@smtp.example.org:587" //nolint:gosec // nobody's
	// Neither the value nor what url.Parse says of it: both may hold a password.
	u, err := url.Parse(c.SMTPURL)
	switch {
	case c.SMTPURL == "" && c.Production():
		c.fault("SMTP_URL", "is not set, and ENV=production writes no mail to the log; give the mail server, such as %s", example)
	case c.SMTPURL == "":
	case err != nil:
		c.fault("SMTP_URL", "is not a URL; percent-encode what is special in the user and the password")
	case u.Scheme != "smtp" && u.Scheme != "smtps" || !isHost(u.Hostname()) || !isPort(u.Port()) || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "":
		c.fault("SMTP_URL", "is not a mail server; write %s, or smtps://, and nothing behind the port", example)
	case u.User != nil && !hasBoth(u.User):
		c.fault("SMTP_URL", "has a user without a password, or the other way round; give both or neither")
	}
	const from = "Parley <no-reply@example.org>"
	if c.MailFrom == "" {
		if c.SMTPURL != "" {
			c.fault("MAIL_FROM", "is not set, and SMTP_URL asks for it; give the address that mail comes from, such as %s", from)
		}
		return
	}
	if _, err := mail.ParseAddress(c.MailFrom); err != nil {
		c.fault("MAIL_FROM", "%q is not a mail address; write one such as %s", c.MailFrom, from)
	}
}

// checkAdmin judges the administrator that is set as a sign-up would.
func (c *configuration) checkAdmin() {
	switch {
	case c.AdminEmail == "" && c.AdminPassword == "":
	case c.AdminEmail == "":
		c.fault("ADMIN_EMAIL", "is not set, and ADMIN_PASSWORD is; give both or neither")
	case c.AdminPassword == "":
		c.fault("ADMIN_PASSWORD", "is not set, and ADMIN_EMAIL is; give both or neither")
	default:
		email, err := auth.NormalizeEmail(c.AdminEmail)
		if err != nil {
			c.fault("ADMIN_EMAIL", "%q is not a mail address; write one such as admin@example.org", c.AdminEmail)
		}
		var refusal *auth.Refusal
		if errors.As(auth.CheckPassword(c.AdminPassword, email), &refusal) {
			c.fault("ADMIN_PASSWORD", "%s", refusal.Reason)
		}
	}
}

// hasBoth reports whether there is a user and a password.
func hasBoth(u *url.Userinfo) bool {
	password, _ := u.Password()
	return u.Username() != "" && password != ""
}

// isPort reports whether s is a port that can be dialled, or none.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

func (c *configuration) checkBackend() {
	c.checkProvider()
	c.checkVoice()
	if c.AIContextBytes < 0 {
		c.fault("AI_CONTEXT_BYTES", "%d is less than nothing; use 0 for all", c.AIContextBytes)
	}
	if c.AIContextMessages < 0 {
		c.fault("AI_CONTEXT_MESSAGES", "%d is less than nothing; use 0 for all", c.AIContextMessages)
	}
	if !isHost(c.BackendHost) {
		c.fault("GRPC_AI_BACKEND_HOST", "%q is not a host; write a name or an address without scheme and port", c.BackendHost)
	}
	if c.BackendPort < 1 || c.BackendPort > 65535 {
		c.fault("GRPC_AI_BACKEND_PORT", "%d is not a port; use 1 to 65535", c.BackendPort)
	}
}

func (c *configuration) checkBackendCredentials() {
	if c.BackendCA != "" {
		pem, err := os.ReadFile(c.BackendCA)
		switch {
		case !c.BackendTLS:
			c.fault("GRPC_AI_BACKEND_CA", "is set, but is of no use without GRPC_AI_BACKEND_TLS=true")
		case err != nil:
			c.fault("GRPC_AI_BACKEND_CA", "%v", err)
		case !x509.NewCertPool().AppendCertsFromPEM(pem):
			c.fault("GRPC_AI_BACKEND_CA", "%s holds no certificate in PEM", c.BackendCA)
		}
	}
	if c.AIProvider != "grpc" && c.voiceProvider() != "grpc" {
		return
	}
	switch err := c.backend().Check(); {
	case errors.Is(err, aigrpc.ErrToken):
		c.fault("GRPC_AI_BACKEND_TOKEN", "holds a space, or what is no printable ASCII")
	case errors.Is(err, aigrpc.ErrInsecureToken):
		c.fault("GRPC_AI_BACKEND_TOKEN", "would leave this machine in the clear; set GRPC_AI_BACKEND_TLS=true")
	}
}

func (c *configuration) checkTimes() {
	atLeast := func(name string, d, least time.Duration) {
		if d < least {
			c.fault(name, "%v is too short; use %v or more", d, least)
		}
	}
	// The claims of a token count whole seconds.
	atLeast("ACCESS_TOKEN_TTL", c.AccessTokenTTL, time.Second)
	atLeast("REFRESH_IDLE_TTL", c.RefreshIdleTTL, max(time.Second, c.AccessTokenTTL))
	atLeast("REFRESH_MAX_TTL", c.RefreshMaxTTL, max(time.Second, c.RefreshIdleTTL))
	atLeast("AUDIT_KEEP", c.AuditKeep, 24*time.Hour)
	atLeast("AI_FIRST_CHUNK_TIMEOUT", c.AIFirstChunkTimeout, time.Millisecond)
	atLeast("AI_CHUNK_TIMEOUT", c.AIChunkTimeout, time.Millisecond)
	atLeast("DRAIN_TIMEOUT", c.DrainTimeout, 0)
	atLeast("DEMO_TOKEN_DELAY", c.DemoTokenDelay, 0)
}

// sqlitePath is the file of an SQLite database, empty where the URL is
// malformed, and false for another database.
func (c *Config) sqlitePath() (string, bool) {
	escaped, ok := strings.CutPrefix(c.DatabaseURL, "sqlite://")
	path, err := url.PathUnescape(escaped)
	if err != nil {
		path = ""
	}
	return path, ok
}

// isHost reports whether s can be dialled or listened on: an IP address or a
// host name, and nothing around it.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	return s != "" && !strings.ContainsAny(s, ":/@?#[]\\ \t\r\n")
}

// parseList parses the comma-separated entries of s, empty ones left out.
func parseList[T any](s string, parse func(string) (T, error)) ([]T, error) {
	var list []T
	for entry := range strings.SplitSeq(s, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		v, err := parse(entry)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, nil
}

// parseNetwork reads a network such as 10.0.0.0/8, or one address.
func parseNetwork(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	network, err := netip.ParsePrefix(s)
	if err != nil || network.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is not a network; write one such as 10.0.0.0/8, or an address", s)
	}
	return network.Masked(), nil
}

// parseOrigin reads an origin as a browser's Origin header writes it: scheme,
// host, and a port that is not the scheme's own (RFC 6454, section 6.2). A
// lone * stands for every origin.
func parseOrigin(s string) (string, error) {
	if s == "*" {
		return s, nil
	}
	bad := fmt.Errorf("%q is not an origin; write scheme://host or scheme://host:port, without a path", s)
	u, err := url.Parse(strings.ToLower(s))
	if err != nil || u.Scheme == "" || u.Host == "" || !isHost(u.Hostname()) || strings.Contains(u.Host, "*") {
		return "", bad
	}
	if u.String() != u.Scheme+"://"+u.Host {
		return "", bad
	}
	if u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443" {
		u.Host = strings.TrimSuffix(u.Host, ":"+u.Port())
	}
	return u.Scheme + "://" + u.Host, nil
}
