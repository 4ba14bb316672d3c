package importer

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/uptrace/bun"

	"parley/models"
)

// An importedUser says that an account came over. Its id here is NULL once it is
// deleted here, and then it does not come again.
type importedUser struct {
	bun.BaseModel `bun:"table:imported_users"`

	ImportID     int64
	OldID        int64
	NewID        *int64
	OldCreatedAt *time.Time // tells if the old id is still that account's
}

// same says that the account that came over is this one.
func (i importedUser) same(u oldUser) bool {
	if i.OldCreatedAt == nil || u.created == nil {
		return i.OldCreatedAt == nil && u.created == nil
	}
	return i.OldCreatedAt.Equal(*u.created)
}

// bringUsers brings the accounts over.
func (r *run) bringUsers(ctx context.Context) error {
	var batch []oldUser
	flush := func() error {
		olds := batch
		batch = nil
		if len(olds) == 0 {
			return nil
		}
		var b *userBatch
		err := r.inBatch(ctx, func(ctx context.Context, tx bun.IDB) error {
			b = &userBatch{run: r, tx: tx, users: make(map[int64]int64), emails: make(map[string]bool)}
			return b.bring(ctx, olds)
		})
		if err != nil {
			return err
		}
		for old, id := range b.users {
			r.users[old] = id
		}
		for email := range b.emails {
			r.emails[email] = true
		}
		r.done(&b.report)
		return nil
	}
	err := r.eachUser(ctx, func(u oldUser) error {
		if batch = append(batch, u); len(batch) < r.Batch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// A userBatch is some accounts on their way, and what they have come to.
type userBatch struct {
	run    *run
	tx     bun.IDB
	users  map[int64]int64
	emails map[string]bool
	report Report
}

func (b *userBatch) bring(ctx context.Context, olds []oldUser) error {
	unknown, err := b.sortOutKnown(ctx, olds)
	if err != nil {
		return err
	}
	fresh, err := b.sortOutTaken(ctx, b.withAddress(unknown))
	if err != nil || len(fresh) == 0 {
		return err
	}
	if err := b.number(ctx, fresh); err != nil {
		return err
	}
	for _, u := range fresh {
		b.users[u.id] = u.ID
		if b.run.DryRun {
			b.users[u.id] = wouldCome
		}
		b.report.Users.Brought++
		b.report.Mended += u.mended
		if u.created == nil {
			b.report.Guessed++
		}
		if !b.run.KnownHash(u.PasswordHash) {
			b.report.Unknown.add(Group{Table: users, Reason: unknownHash, Count: 1, IDs: []int64{u.id}})
		}
	}
	if b.run.DryRun {
		return nil
	}
	return b.insert(ctx, fresh)
}

// sortOutKnown returns the accounts that did not come over before.
func (b *userBatch) sortOutKnown(ctx context.Context, olds []oldUser) ([]oldUser, error) {
	ids := make([]int64, len(olds))
	for i, u := range olds {
		ids[i] = u.id
	}
	var rows []importedUser
	err := b.tx.NewSelect().Model(&rows).Where("import_id = ? AND old_id IN (?)", b.run.importID, bun.List(ids)).Scan(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[int64]importedUser, len(rows))
	for _, row := range rows {
		known[row.OldID] = row
	}
	var unknown []oldUser
	for _, u := range olds {
		row, isKnown := known[u.id]
		switch {
		case !isKnown:
			unknown = append(unknown, u)
			continue
		case !row.same(u):
			b.leave(u, otherAccount)
			continue
		case row.NewID == nil:
			b.users[u.id] = deletedHere
		default:
			b.users[u.id] = *row.NewID
		}
		b.report.Users.Known++
		if email, err := b.run.NormalizeEmail(u.Email); err == nil {
			b.emails[email] = true
		}
	}
	return unknown, nil
}

// withAddress returns the accounts whose addresses are good, each of them once.
func (b *userBatch) withAddress(olds []oldUser) []oldUser {
	var good []oldUser
	for _, u := range olds {
		email, err := b.run.NormalizeEmail(u.Email)
		switch {
		case err != nil:
			b.leave(u, badAddress)
		case b.run.emails[email] || b.emails[email]:
			b.leave(u, sameAddress)
		default:
			b.emails[email] = true
			u.Email = email
			good = append(good, u)
		}
	}
	return good
}

// sortOutTaken returns the accounts whose addresses nobody has here.
func (b *userBatch) sortOutTaken(ctx context.Context, olds []oldUser) ([]oldUser, error) {
	if len(olds) == 0 {
		return nil, nil
	}
	emails := make([]string, len(olds))
	for i, u := range olds {
		emails[i] = u.Email
	}
	var rows []string
	if err := b.tx.NewRaw("SELECT email FROM users WHERE email IN (?)", bun.List(emails)).Scan(ctx, &rows); err != nil {
		return nil, err
	}
	taken := make(map[string]bool, len(rows))
	for _, email := range rows {
		taken[email] = true
	}
	var free []oldUser
	for _, u := range olds {
		if taken[u.Email] {
			b.leave(u, takenAddress)
		} else {
			free = append(free, u)
		}
	}
	return free, nil
}

func (b *userBatch) leave(u oldUser, reason string) {
	b.users[u.id] = staysBehind
	b.report.leave(users, reason, u.id, 1)
}

// number gives the accounts their ids.
func (b *userBatch) number(ctx context.Context, olds []oldUser) error {
	ids := make([]int64, len(olds))
	for i, u := range olds {
		ids[i] = u.id
	}
	n, err := b.run.numberer(ctx, b.tx, users, ids)
	if err != nil {
		return err
	}
	others, err := b.audited(ctx, ids)
	if err != nil {
		return err
	}
	for i := range olds {
		u := &olds[i]
		isOthers := slices.ContainsFunc(others[u.id], func(email string) bool { return email != u.Email })
		if !isOthers && n.keep(u.id, 0) {
			u.ID = u.id
		} else {
			b.report.Users.Renumbered++
			n.fresh = append(n.fresh, &u.ID)
		}
	}
	return n.draw(ctx, b.tx)
}

// audited are the addresses that the audit names with these ids, "" for one that
// was erased. A wipe gives ids out anew, and what the audit holds since an account
// was created is taken to be about it. One that comes over is older than it is
// here, so it must not get an id under which somebody else has been.
func (b *userBatch) audited(ctx context.Context, ids []int64) (map[int64][]string, error) {
	var rows []struct {
		ID    int64
		Email string
	}
	err := b.tx.NewRaw(`
		SELECT subject_id AS id, COALESCE(subject_email, '') AS email FROM audit_entries WHERE subject_id IN (?0)
		UNION SELECT actor_id, COALESCE(actor_email, '') FROM audit_entries WHERE actor_id IN (?0)`, bun.List(ids)).Scan(ctx, &rows)
	addresses := make(map[int64][]string, len(rows))
	for _, row := range rows {
		addresses[row.ID] = append(addresses[row.ID], row.Email)
	}
	return addresses, err
}

// insert stores the accounts, what is to be known of them by the next run, and
// the audit.
func (b *userBatch) insert(ctx context.Context, olds []oldUser) error {
	accounts := make([]models.User, len(olds))
	notes := make([]importedUser, len(olds))
	entries := make([]models.AuditEntry, len(olds))
	for i, u := range olds {
		accounts[i] = u.User
		notes[i] = importedUser{ImportID: b.run.importID, OldID: u.id, NewID: &olds[i].ID, OldCreatedAt: u.created}
		entries[i] = models.AuditEntry{
			At: b.run.now, Action: "account.imported", SubjectID: u.ID, SubjectEmail: u.Email,
			Detail: "from " + b.run.src.service + ", where it had the id " + strconv.FormatInt(u.id, 10),
		}
	}
	for _, rows := range []any{&accounts, &notes, &entries} {
		if _, err := b.tx.NewInsert().Model(rows).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
