package handlers

import (
	"net/http"
	"slices"
	"strings"

	"github.com/julienschmidt/httprouter"
	"github.com/rs/cors"

	"parley/auth"
)

// signedIn is a handler for a caller who is known, by an access token or a
// ticket; open is one for anyone. A signedIn handler cannot be mounted on an
// open route.
type (
	open     func(w http.ResponseWriter, r *http.Request) error
	signedIn func(w http.ResponseWriter, r *http.Request, caller auth.Identity) error
)

// A route is one row of the API.
type route struct {
	method string
	path   string // httprouter's pattern; under the mounts, or at the root
	serve  open

	only    string // the one value that :id may have; httprouter holds no name beside a parameter
	keyed   string // takes an Idempotency-Key, under this name; aliases share it
	limited policy // is throttled, and says so on every answer
	endless bool   // a stream, or as long as one: there is no HEAD of it
	page    bool   // for a browser: a problem is a page too
	quiet   bool   // asked every few seconds by machines: logged at debug level
}

// mounts are the places where the API stands: its own, and the one that the
// two Flask services had.
var mounts = []string{"/api/v1", "/api"}

// table is the whole API: first what stands at the root, then what stands
// under each mount.
func (s *server) table() []route {
	rows := []route{
		{method: http.MethodGet, path: "/", serve: s.root, quiet: true},
		{method: http.MethodGet, path: "/console/:file", serve: s.consoleFile},
		{method: http.MethodGet, path: "/health", serve: s.health, quiet: true},
		{method: http.MethodGet, path: "/livez", serve: s.live, quiet: true},
		{method: http.MethodGet, path: "/readyz", serve: s.readiness, quiet: true},
		{method: http.MethodGet, path: "/.well-known/jwks.json", serve: s.publicKeys},
		{method: http.MethodGet, path: "/reset-password", serve: s.showReset, page: true},
		{method: http.MethodPost, path: "/reset-password", serve: s.submitReset, page: true},
		{method: http.MethodGet, path: "/docs", serve: s.showDocs},
		{method: http.MethodGet, path: "/docs/:file", serve: s.docsFile},
	}
	for _, mount := range mounts {
		for _, row := range slices.Concat(s.api(), s.spoken(), s.administration()) {
			row.path = mount + row.path
			rows = append(rows, row)
		}
	}
	return rows
}

// api are the rows under each mount that are for everybody.
func (s *server) api() []route {
	return []route{
		{method: http.MethodGet, path: "/health", serve: s.health, quiet: true},
		{method: http.MethodGet, path: "/openapi.yaml", serve: s.description},

		{method: http.MethodPost, path: "/auth/signup", serve: s.signup, limited: signupPolicy},
		{method: http.MethodPost, path: "/auth/login", serve: s.login, limited: loginPolicy},
		{method: http.MethodPost, path: "/auth/refresh", serve: s.refresh},
		{method: http.MethodPost, path: "/auth/logout", serve: s.logout},
		{method: http.MethodPost, path: "/auth/logout-all", serve: s.signedIn(s.logoutAll)},
		{method: http.MethodGet, path: "/auth/check", serve: s.checkAuth},
		{method: http.MethodGet, path: "/auth/devices", serve: s.signedIn(s.listDevices)},
		{method: http.MethodDelete, path: "/auth/devices/:id", serve: s.signedIn(s.removeDevice)},
		{method: http.MethodPost, path: "/auth/reset-password-request", serve: s.requestReset, limited: resetPolicy},
		{method: http.MethodGet, path: "/auth/reset-password/:token", serve: s.checkReset},
		{method: http.MethodPost, path: "/auth/reset-password/:token", serve: s.resetPassword},
		{method: http.MethodPost, path: "/auth/change-password", serve: s.signedIn(s.changePassword), limited: loginPolicy},

		{method: http.MethodGet, path: "/user/profile", serve: s.signedIn(s.profile)},
		{method: http.MethodPatch, path: "/user/profile", serve: s.signedIn(s.changeProfile), limited: loginPolicy},
		{method: http.MethodDelete, path: "/user", serve: s.signedIn(s.deleteUser), limited: loginPolicy},
		{method: http.MethodGet, path: "/user/usage", serve: s.signedIn(s.usage)},
		{method: http.MethodGet, path: "/user/export", serve: s.signedIn(s.export), endless: true},

		{method: http.MethodGet, path: "/chats", serve: s.signedIn(s.listChats)},
		{method: http.MethodGet, path: "/chat/:id", only: "list", serve: s.signedIn(s.listChats)},
		{method: http.MethodPost, path: "/chats", serve: s.signedIn(s.createChat), keyed: "chats"},
		{method: http.MethodPost, path: "/chat/create", serve: s.signedIn(s.createChat), keyed: "chats"},
		{method: http.MethodGet, path: "/chats/:id", serve: s.signedIn(s.getChat)},
		{method: http.MethodPatch, path: "/chats/:id", serve: s.signedIn(s.renameChat)},
		{method: http.MethodDelete, path: "/chats/:id", serve: s.signedIn(s.deleteChat)},
		{method: http.MethodGet, path: "/chats/:id/messages", serve: s.signedIn(s.listMessages)},
		{method: http.MethodGet, path: "/chats/:id/export", serve: s.signedIn(s.exportChat), endless: true},
		{method: http.MethodGet, path: "/chat/:id/messages", serve: s.signedIn(s.listMessages)},

		{method: http.MethodPost, path: "/messages", serve: s.signedIn(s.sendMessage), keyed: "messages", limited: messagesPolicy},
		{method: http.MethodPost, path: "/chat/send", serve: s.signedIn(s.sendMessage), keyed: "messages", limited: messagesPolicy},
		{method: http.MethodPost, path: "/chats/:id/messages", serve: s.signedIn(s.sendToChat), keyed: "chats/messages", limited: messagesPolicy},
		{method: http.MethodGet, path: "/messages/:id", serve: s.signedIn(s.getMessage)},
		{method: http.MethodGet, path: "/messages/:id/stream", serve: s.signedInOrTicket(s.followMessage), endless: true},
		{method: http.MethodPost, path: "/messages/:id/stream-ticket", serve: s.signedIn(s.makeTicket)},
		{method: http.MethodPost, path: "/messages/:id/stop", serve: s.signedIn(s.stopReply)},
		{method: http.MethodPost, path: "/messages/:id/regenerate", serve: s.signedIn(s.regenerate), keyed: "messages/regenerate", limited: messagesPolicy},
		{method: http.MethodGet, path: "/messages/:id/audio", serve: s.voiced(s.speakMessage)},
		{method: http.MethodGet, path: "/events", serve: s.signedIn(s.followEvents), endless: true},
		{method: http.MethodPost, path: "/messages/:id/edit", serve: s.signedIn(s.editMessage), keyed: "messages/edit", limited: messagesPolicy},
	}
}

// spoken are those for who speaks and wants to hear.
func (s *server) spoken() []route {
	return []route{
		{method: http.MethodPost, path: "/voice/messages", serve: s.voiced(s.sendRecording), keyed: "voice/messages", limited: messagesPolicy},
		{method: http.MethodPost, path: "/voice/uploads", serve: s.voiced(s.beginUpload), keyed: "voice/uploads"},
		{method: http.MethodGet, path: "/voice/uploads/:id", serve: s.voiced(s.getUpload)},
		{method: http.MethodDelete, path: "/voice/uploads/:id", serve: s.voiced(s.dropUpload)},
		{method: http.MethodPost, path: "/voice/uploads/:id/chunks", serve: s.voiced(s.addChunk)},
		{method: http.MethodPost, path: "/voice/uploads/:id/complete", serve: s.voiced(s.completeUpload), keyed: "voice/uploads/complete", limited: messagesPolicy},
		{method: http.MethodPost, path: "/voice/speech", serve: s.voiced(s.speak)},
	}
}

// administration are those for administrators.
func (s *server) administration() []route {
	return []route{
		{method: http.MethodGet, path: "/admin/metrics/system", serve: s.admin(s.systemMetrics)},
		{method: http.MethodGet, path: "/admin/users", serve: s.admin(s.listUsers)},
		{method: http.MethodPatch, path: "/admin/users/:id", serve: s.admin(s.setUser)},
		{method: http.MethodDelete, path: "/admin/users/:id", serve: s.admin(s.removeUser)},
		{method: http.MethodPost, path: "/admin/delete-all-users", serve: s.admin(s.deleteAllUsers)},
		{method: http.MethodGet, path: "/admin/audit", serve: s.admin(s.listAudit)},
	}
}

// router mounts the table. What it has no handler for is for missing to answer.
func (s *server) router() http.Handler {
	router := httprouter.New()
	router.RedirectTrailingSlash = false
	router.RedirectFixedPath = false
	router.HandleMethodNotAllowed = false // missing does, and knows what only means
	router.HandleOPTIONS = false
	router.NotFound = http.HandlerFunc(s.missing)
	for i := range s.routes {
		row := &s.routes[i]
		for _, method := range row.methods() {
			router.Handle(method, row.path, s.adapt(row))
		}
	}
	return router
}

// adapt makes row a handler of the router: the one place where what a handler
// returns becomes an answer.
func (s *server) adapt(row *route) httprouter.Handle {
	return func(w http.ResponseWriter, r *http.Request, params httprouter.Params) {
		if row.only != "" && row.only != params.ByName("id") {
			s.missing(w, r)
			return
		}
		info := infoOf(r)
		info.route, info.params = row, params
		if told := s.policies[row.limited]; told != "" {
			w.Header().Set("RateLimit-Policy", told)
		}
		if !hasPlace(r.Context()) {
			w.Header().Set("Connection", "close") // for the next one
			if !row.quiet {
				s.fail(w, r, errNoPlace)
				return
			}
		}
		if err := row.serve(w, r); err != nil {
			s.fail(w, r, err)
		}
	}
}

// missing answers a request that no row takes: where others take its path 405,
// or for OPTIONS 204, with their methods; else 404.
func (s *server) missing(w http.ResponseWriter, r *http.Request) {
	if s.mayScrape(r) {
		s.adapt(&route{path: scrapePath, serve: s.showMetrics, quiet: true})(w, r, nil)
		return
	}
	var allow []string
	for i := range s.routes {
		if row := &s.routes[i]; row.matches(r.URL.Path) {
			allow = append(allow, row.methods()...)
		}
	}
	if len(allow) == 0 {
		s.fail(w, r, errNoRoute)
		return
	}
	allow = append(allow, http.MethodOptions)
	slices.Sort(allow)
	w.Header().Set("Allow", strings.Join(slices.Compact(allow), ", "))
	if r.Method == http.MethodOptions {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	s.fail(w, r, errMethodNotAllowed)
}

// methods are those that the row answers.
func (rt *route) methods() []string {
	if rt.method == http.MethodGet && !rt.endless {
		return []string{http.MethodGet, http.MethodHead}
	}
	return []string{rt.method}
}

// matches reports whether the row's pattern, with any method, takes path.
func (rt *route) matches(path string) bool {
	want, got := strings.Split(rt.path, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	for i, segment := range want {
		if strings.HasPrefix(segment, ":") && got[i] != "" {
			if rt.only != "" && rt.only != got[i] {
				return false
			}
		} else if segment != got[i] {
			return false
		}
	}
	return true
}

// crossOrigin lets pages of these origins call next, and no others. "*" is
// every origin, but no list is none: rs/cors would take it for all.
func crossOrigin(origins []string, next http.Handler) http.Handler {
	options := cors.Options{
		AllowedOrigins: origins,
		AllowedMethods: []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodDelete, http.MethodOptions},
		AllowedHeaders: []string{
			"Accept", "Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "Prefer",
			"X-Request-Id", "Upload-Offset", "Digest", "Content-Digest", "Repr-Digest",
		},
		ExposedHeaders: []string{
			"X-Request-Id", "Location", "Preference-Applied", "Retry-After", "RateLimit", "RateLimit-Policy",
			"WWW-Authenticate", "Upload-Offset", "Content-Disposition",
		},
		MaxAge: 600,
	}
	if len(origins) == 0 {
		options.AllowOriginFunc = func(string) bool { return false }
	}
	return cors.New(options).Handler(next)
}
