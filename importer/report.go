package importer

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
)

// A Report says what has come over, what has not, and why.
type Report struct {
	Source  string // a line for a person
	DryRun  bool
	Columns []Columns

	Users, Chats, Messages Tally

	Mended  int64 // texts that held a NUL, bad UTF-8 or more than a line
	Guessed int64 // times that the source does not say
	Behind  []Group
	// Unknown are the accounts that came over with a password that nothing can
	// be verified against: they have to reset it.
	Unknown Group
}

// A Tally counts the rows of a table of the source. Once the run is through,
// each is one of those that were brought, known and left behind.
type Tally struct {
	Total      int64
	Brought    int64
	Known      int64 // brought over before
	Behind     int64
	Renumbered int64 // of those that were brought, how many have another id
}

// A Group is some rows of the source that have something in common.
type Group struct {
	Table, Reason string
	Count         int64
	IDs           []int64 // the first ones
}

// mostIDs is how many ids a group names.
const mostIDs = 50

// The tables, by their names here.
const (
	users    = "users"
	chats    = "chats"
	messages = "messages"
)

var tables = [3]string{users, chats, messages}

// Why rows stay behind.
const (
	noID         = "the id is no whole number"
	twice        = "the id is there twice"
	badAddress   = "the address is none that can be written to"
	sameAddress  = "an older account of the source has the same address"
	takenAddress = "the address has an account here"
	otherAccount = "another account came over under this id before"
	noAccount    = "there is no account that they belong to"
	accountStays = "their account stays behind"
	accountGone  = "their account was deleted here"
	chatMoved    = "they came over for another account before"
	chatStays    = "their chat stays behind"
	chatGone     = "their chat was deleted here"
	noChat       = "there is no chat that they belong to"
	noRole       = "the role is neither the user nor the assistant"
	systemRole   = "the role is system, and those are not kept here"
)

const unknownHash = "the password hash is of no known kind, so it has to be reset"

// tally is the one of a table.
func (r *Report) tally(table string) *Tally {
	switch table {
	case users:
		return &r.Users
	case chats:
		return &r.Chats
	}
	return &r.Messages
}

// leave says that n rows stay behind; id is one of them, or 0.
func (r *Report) leave(table, reason string, id, n int64) {
	r.tally(table).Behind += n
	g := Group{Table: table, Reason: reason, Count: n}
	if id != 0 {
		g.IDs = []int64{id}
	}
	r.addBehind(g)
}

func (r *Report) addBehind(g Group) {
	i := slices.IndexFunc(r.Behind, func(b Group) bool { return b.Table == g.Table && b.Reason == g.Reason })
	if i < 0 {
		i = len(r.Behind)
		r.Behind = append(r.Behind, Group{})
	}
	r.Behind[i].add(g)
}

// add adds a group of the same kind, or an empty one.
func (g *Group) add(more Group) {
	if more.Count == 0 {
		return
	}
	g.Table, g.Reason = more.Table, more.Reason
	g.Count += more.Count
	g.IDs = append(g.IDs, more.IDs[:min(len(more.IDs), mostIDs-len(g.IDs))]...)
}

// add adds what a batch has come to.
func (r *Report) add(batch *Report) {
	for _, table := range tables {
		sum, more := r.tally(table), batch.tally(table)
		sum.Brought += more.Brought
		sum.Known += more.Known
		sum.Behind += more.Behind
		sum.Renumbered += more.Renumbered
	}
	r.Mended += batch.Mended
	r.Guessed += batch.Guessed
	for _, g := range batch.Behind {
		r.addBehind(g)
	}
	r.Unknown.add(batch.Unknown)
}

// Progress is one line that says how far a run is.
func (r *Report) Progress() string {
	var parts []string
	for _, table := range tables {
		t := r.tally(table)
		parts = append(parts, fmt.Sprintf("%d of %d %s", t.Brought+t.Known+t.Behind, t.Total, table))
	}
	return strings.Join(parts, ", ")
}

// String is the report for a person. It holds ids and names of columns, and
// nothing that anybody has written.
func (r Report) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "From %s:\n", r.Source)
	for _, c := range r.Columns {
		fmt.Fprintf(&text, "  %s: %s", c.Table, strings.Join(c.Read, ", "))
		if len(c.Behind) > 0 {
			fmt.Fprintf(&text, "; not %s", strings.Join(c.Behind, ", "))
		}
		text.WriteString("\n")
	}
	brought := "BROUGHT OVER"
	if r.DryRun {
		brought = "WOULD COME OVER"
	}
	text.WriteString("\n")
	table := tabwriter.NewWriter(&text, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "\tIN ALL\t%s\tWITH ANOTHER ID\tBEFORE\tLEFT BEHIND\t\n", brought)
	for _, name := range tables {
		t := r.tally(name)
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, t.Total, t.Brought, t.Renumbered, t.Known, t.Behind)
	}
	table.Flush()
	r.writeRemarks(&text)
	return text.String()
}

func (r Report) writeRemarks(text *strings.Builder) {
	if r.Mended > 0 {
		fmt.Fprintf(text, "\n%d texts were mended: what cannot be stored is marked by U+FFFD, names and titles are one line.\n", r.Mended)
	}
	if r.Guessed > 0 {
		fmt.Fprintf(text, "\n%d times are not said or make no sense; those of what stands before are taken.\n", r.Guessed)
	}
	if len(r.Behind) > 0 {
		text.WriteString("\nLeft behind:\n")
	}
	for _, g := range r.Behind {
		fmt.Fprintf(text, "  %s\n", g)
	}
	if r.Unknown.Count > 0 {
		fmt.Fprintf(text, "\nTo be told:\n  %s\n", r.Unknown)
	}
}

// String is a line for a person.
func (g Group) String() string {
	line := fmt.Sprintf("%d %s: %s", g.Count, g.Table, g.Reason)
	if len(g.IDs) == 0 {
		return line
	}
	line += fmt.Sprintf(" (%s", strings.Trim(fmt.Sprint(g.IDs), "[]"))
	if more := g.Count - int64(len(g.IDs)); more > 0 {
		line += fmt.Sprintf(" and %d more", more)
	}
	return line + ")"
}
