package importer

import (
	"context"
	"slices"

	"github.com/uptrace/bun"

	"parley/models"
)

// defaultTitle is what Amanda and Parley call a chat that has no title yet.
const defaultTitle = "New Chat"

// An importedChat says that a chat came over, with its messages up to one. Its
// id here is NULL once it is deleted here, and then it does not come again.
type importedChat struct {
	bun.BaseModel `bun:"table:imported_chats"`

	ImportID     int64
	OldID        int64
	NewID        *int64
	OldMessageID int64 // the largest old id of a message that was considered
}

// bringChats brings over the chats with their messages.
func (r *run) bringChats(ctx context.Context) error {
	var (
		batch []oldChat
		size  int // how many messages
	)
	flush := func() error {
		olds := batch
		batch, size = nil, 0
		if len(olds) == 0 {
			return nil
		}
		var b *chatBatch
		err := r.inBatch(ctx, func(ctx context.Context, tx bun.IDB) error {
			b = &chatBatch{run: r, tx: tx}
			return b.bring(ctx, olds)
		})
		if err == nil {
			r.done(&b.report)
		}
		return err
	}
	err := r.eachChat(ctx, func(c oldChat) error {
		batch = append(batch, c)
		if size += len(c.messages); size < r.Batch && len(batch) < r.Batch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// countStrays reports the messages that no chat leads to.
func (r *run) countStrays(ctx context.Context) error {
	n, err := r.src.strays(ctx)
	if err == nil && n > 0 {
		r.report.leave(messages, noChat, 0, n)
	}
	return err
}

// A chatBatch is some chats on their way, and what they have come to.
type chatBatch struct {
	run    *run
	tx     bun.IDB
	report Report
}

// A transfer is what is to be stored of a chat: all of it, or what it has got
// since it came over.
type transfer struct {
	models.Chat

	old   int64
	last  int64 // the largest old id of its messages
	known bool  // the chat is here
	above int64 // the largest id that one of its messages has here
	news  []oldMessage
}

func (b *chatBatch) bring(ctx context.Context, olds []oldChat) error {
	known, err := b.known(ctx, olds)
	if err != nil {
		return err
	}
	here, err := b.holdChats(ctx, known)
	if err != nil {
		return err
	}
	owners, err := b.holdOwners(ctx, olds)
	if err != nil {
		return err
	}
	var transfers []transfer
	for _, c := range olds {
		note, isKnown := known[c.id]
		reason := b.run.whyNot(c, owners)
		switch {
		case isKnown && note.NewID == nil:
			b.deleted(c, note)
		case reason == "" && isKnown && here[*note.NewID].UserID != b.run.users[c.user]:
			b.leave(c, chatMoved)
		case reason != "":
			b.leave(c, reason)
		case isKnown:
			transfers = b.continued(transfers, c, note, here[*note.NewID])
		default:
			transfers = append(transfers, b.begun(c))
		}
	}
	if err := b.number(ctx, transfers); err != nil || b.run.DryRun {
		return err
	}
	return b.store(ctx, transfers)
}

// known are the chats that came over before, by their old ids.
func (b *chatBatch) known(ctx context.Context, olds []oldChat) (map[int64]importedChat, error) {
	ids := make([]int64, len(olds))
	for i, c := range olds {
		ids[i] = c.id
	}
	var rows []importedChat
	err := b.tx.NewSelect().Model(&rows).Where("import_id = ? AND old_id IN (?)", b.run.importID, bun.List(ids)).Scan(ctx)
	known := make(map[int64]importedChat, len(rows))
	for _, row := range rows {
		known[row.OldID] = row
	}
	return known, err
}

// A heldChat is a chat that is here, and cannot change meanwhile.
type heldChat struct {
	models.Chat

	LastMessageID int64
}

// holdChats returns the chats that came over before, by their ids. Like all who
// change chats it locks them before their users, and in order.
func (b *chatBatch) holdChats(ctx context.Context, known map[int64]importedChat) (map[int64]heldChat, error) {
	var ids []int64
	for _, note := range known {
		if note.NewID != nil {
			ids = append(ids, *note.NewID)
		}
	}
	here := make(map[int64]heldChat, len(ids))
	if len(ids) == 0 {
		return here, nil
	}
	var held []models.Chat
	q := b.tx.NewSelect().Model(&held).Where("id IN (?)", bun.List(ids)).Order("id")
	if b.run.postgres && !b.run.DryRun {
		q = q.For("UPDATE")
	}
	if err := q.Scan(ctx); err != nil {
		return nil, err
	}
	var lasts []struct{ ChatID, LastMessageID int64 }
	err := b.tx.NewRaw("SELECT chat_id, max(id) AS last_message_id FROM messages WHERE chat_id IN (?) GROUP BY chat_id", bun.List(ids)).
		Scan(ctx, &lasts)
	if err != nil {
		return nil, err
	}
	for _, chat := range held {
		here[chat.ID] = heldChat{Chat: chat}
	}
	for _, last := range lasts {
		here[last.ChatID] = heldChat{here[last.ChatID].Chat, last.LastMessageID}
	}
	return here, nil
}

// holdOwners returns which of the chats' new owners are there, and keeps them
// there.
func (b *chatBatch) holdOwners(ctx context.Context, olds []oldChat) (map[int64]bool, error) {
	var ids []int64
	for _, c := range olds {
		if id := b.run.users[c.user]; id > 0 {
			ids = append(ids, id)
		}
	}
	owners := map[int64]bool{wouldCome: b.run.DryRun}
	if len(ids) == 0 {
		return owners, nil
	}
	slices.Sort(ids)
	q := b.tx.NewSelect().Model((*models.User)(nil)).Column("id").Where("id IN (?)", bun.List(slices.Compact(ids))).Order("id")
	if b.run.postgres && !b.run.DryRun {
		q = q.For("KEY SHARE")
	}
	var held []int64
	if err := q.Scan(ctx, &held); err != nil {
		return nil, err
	}
	for _, id := range held {
		owners[id] = true
	}
	return owners, nil
}

// whyNot says why a chat stays behind, "" if it does not.
func (r *run) whyNot(c oldChat, owners map[int64]bool) string {
	owner, met := r.users[c.user]
	switch {
	case !c.hasUser || !met:
		return noAccount
	case owner == staysBehind:
		return accountStays
	case owner == deletedHere || !owners[owner]:
		return accountGone
	}
	return ""
}

func (b *chatBatch) leave(c oldChat, reason string) {
	b.report.leave(chats, reason, c.id, 1)
	if n := int64(len(c.messages)); n > 0 {
		b.report.leave(messages, chatStays, 0, n)
	}
}

// deleted counts a chat that came over and was deleted here.
func (b *chatBatch) deleted(c oldChat, note importedChat) {
	b.report.Chats.Known++
	news := int64(len(c.since(note)))
	b.report.Messages.Known += int64(len(c.messages)) - news
	if news > 0 {
		b.report.leave(messages, chatGone, 0, news)
	}
}

// since are the messages that a chat has got since it came over.
func (c oldChat) since(note importedChat) []oldMessage {
	var news []oldMessage
	for _, m := range c.messages {
		if m.id > note.OldMessageID {
			news = append(news, m)
		}
	}
	return news
}

// begun is a chat that comes over.
func (b *chatBatch) begun(c oldChat) transfer {
	b.report.Chats.Brought++
	b.report.Messages.Brought += int64(len(c.messages))
	b.report.Mended += c.mended
	b.report.Guessed += c.guessed
	t := transfer{Chat: c.Chat, old: c.id, last: c.last, news: c.messages}
	t.UserID = b.run.users[c.user]
	b.count(&t)
	if !t.Titled && t.Title == "" {
		t.Title = defaultTitle
	}
	return t
}

// continued adds what a chat has got since it came over, if it has got anything.
func (b *chatBatch) continued(transfers []transfer, c oldChat, note importedChat, here heldChat) []transfer {
	b.report.Chats.Known++
	news := c.since(note)
	b.report.Messages.Known += int64(len(c.messages) - len(news))
	b.report.Messages.Brought += int64(len(news))
	if len(news) == 0 {
		return transfers
	}
	t := transfer{Chat: here.Chat, old: c.id, last: c.last, known: true, above: here.LastMessageID, news: news}
	b.count(&t)
	return append(transfers, t)
}

// count brings what a chat keeps of its messages up to date, as Parley does when
// one is sent.
func (b *chatBatch) count(t *transfer) {
	for _, m := range t.news {
		if m.mended {
			b.report.Mended++
		}
		at := m.CreatedAt
		if t.LastMessageAt == nil || at.After(*t.LastMessageAt) {
			t.LastMessageAt = &at
		}
		if at.After(t.ActiveAt) {
			t.ActiveAt = at
		}
		if !t.Titled && m.Role == models.RoleUser {
			if title := models.TitleFrom(m.Content); title != "" {
				t.Title, t.Titled = title, true
			}
		}
	}
	t.MessageCount += int64(len(t.news))
}

// number gives the chats and the messages their ids. Within a chat they ascend:
// from the first message that gets another one, all do.
func (b *chatBatch) number(ctx context.Context, transfers []transfer) error {
	var oldChats, oldMessages []int64
	for _, t := range transfers {
		if !t.known {
			oldChats = append(oldChats, t.old)
		}
		for _, m := range t.news {
			oldMessages = append(oldMessages, m.id)
		}
	}
	chatIDs, err := b.run.numberer(ctx, b.tx, chats, oldChats)
	if err != nil {
		return err
	}
	messageIDs, err := b.run.numberer(ctx, b.tx, messages, oldMessages)
	if err != nil {
		return err
	}
	for i := range transfers {
		t := &transfers[i]
		switch {
		case t.known:
		case chatIDs.keep(t.old, 0):
			t.ID = t.old
		default:
			b.report.Chats.Renumbered++
			chatIDs.fresh = append(chatIDs.fresh, &t.ID)
		}
		b.report.Messages.Renumbered += messageIDs.ascending(t.news, t.above)
	}
	if err := chatIDs.draw(ctx, b.tx); err != nil {
		return err
	}
	return messageIDs.draw(ctx, b.tx)
}

// ascending gives the messages of a chat ids above one that is there, and
// returns how many get another one than before.
func (n *numbering) ascending(news []oldMessage, above int64) (renumbered int64) {
	for i := range news {
		m := &news[i]
		if renumbered == 0 && n.keep(m.id, above) {
			m.ID, above = m.id, m.id
			continue
		}
		renumbered++
		n.fresh = append(n.fresh, &m.ID)
	}
	return renumbered
}
