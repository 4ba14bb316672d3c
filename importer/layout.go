package importer

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// A field is what is asked of a table, and the columns in which it may stand,
// the likelier first. What the two services called theirs is known in part
// alone, so several names are taken for each.
type field struct {
	name    string
	columns []string
	needed  bool
	own     bool // only Parley's own tables have it
}

// The fields of users, and where they stand in a row.
const (
	userID = iota
	userEmail
	userHash
	userName
	userAdmin
	userDisabled
	userCreated
	userWidth
)

var userFields = []field{
	userID:       {name: "id", columns: []string{"id", "user_id"}, needed: true},
	userEmail:    {name: "email", columns: []string{"email", "email_address"}, needed: true},
	userHash:     {name: "password hash", columns: []string{"password_hash", "hashed_password", "password"}, needed: true},
	userName:     {name: "name", columns: []string{"user_name", "username", "display_name", "name"}},
	userAdmin:    {name: "administrator", columns: []string{"is_admin", "admin"}},
	userDisabled: {name: "disabled at", columns: []string{"disabled_at"}, own: true},
	userCreated:  {name: "created at", columns: []string{"created_at", "created", "date_created", "registered_at"}},
}

// The fields of chats.
const (
	chatID = iota
	chatUser
	chatTitle
	chatTitled
	chatCreated
	chatActive
	chatWidth
)

var chatFields = []field{
	chatID:      {name: "id", columns: []string{"id", "chat_id", "session_id"}, needed: true},
	chatUser:    {name: "account", columns: []string{"user_id", "owner_id"}, needed: true},
	chatTitle:   {name: "title", columns: []string{"title", "name", "session_name"}},
	chatTitled:  {name: "titled", columns: []string{"titled"}, own: true},
	chatCreated: {name: "created at", columns: []string{"created_at", "created", "date_created", "started_at", "timestamp"}},
	chatActive:  {name: "active at", columns: []string{"active_at"}, own: true},
}

// The fields of messages.
const (
	messageID = iota
	messageChat
	messageRole
	messageContent
	messageCreated
	messageStatus
	messageReason
	messageInput
	messageOutput
	messageEstimated
	messageError
	messageAttempt
	messageShared
	messageWidth
)

var messageFields = []field{
	messageID:        {name: "id", columns: []string{"id", "message_id"}, needed: true},
	messageChat:      {name: "chat", columns: []string{"chat_id", "session_id", "chat_session_id", "conversation_id"}, needed: true},
	messageRole:      {name: "role", columns: []string{"role", "sender"}, needed: true},
	messageContent:   {name: "content", columns: []string{"content", "text", "message", "body"}, needed: true},
	messageCreated:   {name: "created at", columns: []string{"timestamp", "created_at", "created", "sent_at"}},
	messageStatus:    {name: "status", columns: []string{"status"}, own: true},
	messageReason:    {name: "finish reason", columns: []string{"finish_reason"}, own: true},
	messageInput:     {name: "input tokens", columns: []string{"input_tokens"}, own: true},
	messageOutput:    {name: "output tokens", columns: []string{"output_tokens"}, own: true},
	messageEstimated: {name: "estimated", columns: []string{"estimated"}, own: true},
	messageError:     {name: "error code", columns: []string{"error_code"}, own: true},
	messageAttempt:   {name: "attempt", columns: []string{"attempt"}, own: true},
	messageShared:    {name: "shared bytes", columns: []string{"shared_bytes"}, own: true},
}

// The services whose databases are known.
const (
	amanda = "Amanda"
	tena   = "Tena"
	parley = "Parley"
)

// layout is how a source is laid out.
type layout struct {
	service                string
	users, chats, messages table
}

// table is a table of a source.
type table struct {
	name    string
	columns []string // for each field the column it is in, "" where there is none
	behind  []string // columns that nothing is asked of
}

// column is a column as the database describes it.
type column struct {
	Table, Name string
	Type        string // PostgreSQL's name of it; "" on SQLite, where a value has the type
}

// tablesOf are the tables that layoutOf looks at.
var tablesOf = map[string][]string{
	amanda: {"users", "chats", "messages"},
	tena:   {"user", "chat_session", "message"},
}

// layoutOf tells from its columns whose database it is. The error is a line for
// each thing that is in the way.
func layoutOf(columns []column) (layout, error) {
	byTable := make(map[string][]column)
	for _, c := range columns {
		name := strings.ToLower(c.Table)
		byTable[name] = append(byTable[name], c)
	}
	has := func(service string) bool {
		return !slices.ContainsFunc(tablesOf[service], func(name string) bool { return byTable[name] == nil })
	}
	isAmanda, isTena := has(amanda), has(tena)
	switch {
	case isAmanda && isTena:
		return layout{}, errors.New("it holds the tables of both Amanda and Tena; bring them over from two databases")
	case !isAmanda && !isTena:
		return layout{}, errors.New(`it holds neither Amanda's tables (users, chats, messages) nor Tena's ("user", chat_session, message)`)
	}
	l := layout{service: amanda}
	if isTena {
		l.service = tena
	}
	names := tablesOf[l.service]
	if hasColumn(byTable[names[1]], "active_at") && hasColumn(byTable[names[2]], "shared_bytes") {
		l.service = parley
	}
	var missing []string
	for i, t := range []*table{&l.users, &l.chats, &l.messages} {
		var faults []string
		*t, faults = tableOf(byTable[names[i]], [][]field{userFields, chatFields, messageFields}[i], l.service == parley)
		missing = append(missing, faults...)
	}
	if missing != nil {
		return layout{}, fmt.Errorf("it looks like %s's, but %s", l.service, strings.Join(missing, "; "))
	}
	return l, nil
}

func hasColumn(columns []column, name string) bool {
	return slices.ContainsFunc(columns, func(c column) bool { return strings.EqualFold(c.Name, name) })
}

// tableOf finds the columns of the fields, and says what is missing.
func tableOf(columns []column, fields []field, own bool) (table, []string) {
	t := table{name: columns[0].Table, columns: make([]string, len(fields))}
	var faults []string
	used := make(map[string]bool)
	for i, f := range fields {
		if f.own && !own {
			continue
		}
		found := findColumn(columns, f.columns)
		switch {
		case found.Name == "" && f.needed:
			faults = append(faults, fmt.Sprintf("table %s has no column for the %s (%s)", t.name, f.name, strings.Join(f.columns, ", ")))
		case f.name == "id" && !wholeNumber(found.Type):
			faults = append(faults, fmt.Sprintf("column %s of table %s is of type %s, and ids are whole numbers", found.Name, t.name, found.Type))
		}
		t.columns[i] = found.Name
		used[found.Name] = true
	}
	for _, c := range columns {
		if !used[c.Name] {
			t.behind = append(t.behind, c.Name)
		}
	}
	return t, faults
}

// findColumn is the first column that has one of the names.
func findColumn(columns []column, names []string) column {
	for _, name := range names {
		if i := slices.IndexFunc(columns, func(c column) bool { return strings.EqualFold(c.Name, name) }); i >= 0 {
			return columns[i]
		}
	}
	return column{}
}

func wholeNumber(kind string) bool {
	return slices.Contains([]string{"", "smallint", "integer", "bigint"}, kind)
}

// Columns says of a table of the source which columns are read, and which are
// not.
type Columns struct {
	Table        string
	Read, Behind []string
}

func (t table) report() Columns {
	read := slices.DeleteFunc(slices.Clone(t.columns), func(name string) bool { return name == "" })
	return Columns{Table: t.name, Read: read, Behind: t.behind}
}
