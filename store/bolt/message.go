package bolt

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// PutMessage touches the indices only where what they hold has changed: a
// message that is put again, say to note a party, costs its record.
func (w *writer) PutMessage(m store.Message) error {
	old, err := lookup[store.Message](&w.reader, messages, m.ID[:])
	if err != nil {
		return err
	}
	if err := w.putRecord(messages, m.ID[:], &m); err != nil {
		return err
	}
	switch {
	case old == nil:
		return w.indexMessage(&m)
	case sameIndex(old, &m):
		return w.swap(unresolved, unresolvedRow(old), unresolvedRow(&m))
	}
	return w.reindexMessage(old, &m)
}

// indexMessage adds the rows that lead to a message. Doing it twice is
// harmless.
func (w *writer) indexMessage(m *store.Message) error {
	if m.Exception != "" {
		if err := w.putRow(exceptions, m.ID[:], []byte(m.Exception)); err != nil {
			return err
		}
	}
	for _, id := range ownIDs(m) {
		key := ownKey(id, m.ID)
		if err := w.putRow(messageIDs, key, w.sealRef(key, refOf(m, true))); err != nil {
			return err
		}
	}
	if m.Case == 0 {
		return nil
	}
	if err := w.swap(cases, nil, timelineRows(m)); err != nil {
		return err
	}
	if err := w.swap(cases, nil, ordinalRow(m)); err != nil {
		return err
	}
	if err := w.swap(unresolved, nil, unresolvedRow(m)); err != nil {
		return err
	}
	if err := w.indexReferences(m, nil); err != nil {
		return err
	}
	return w.indexUsage(m, nil)
}

// reindexMessage moves the rows of a message that changed. What several
// messages of a case share (first mention of an id, use of an address) is
// worked out again from the case's timeline.
func (w *writer) reindexMessage(old, m *store.Message) error {
	if err := w.swap(exceptions, exceptionRow(old), exceptionRow(m)); err != nil {
		return err
	}
	if err := w.swap(cases, timelineRows(old), timelineRows(m)); err != nil {
		return err
	}
	if err := w.swap(cases, ordinalRow(old), ordinalRow(m)); err != nil {
		return err
	}
	if err := w.swap(unresolved, unresolvedRow(old), unresolvedRow(m)); err != nil {
		return err
	}
	for _, id := range ownIDs(old) {
		if err := w.drop(messageIDs, ownKey(id, old.ID)); err != nil {
			return err
		}
	}
	if old.Case != 0 {
		if err := w.forget(old); err != nil {
			return err
		}
	}
	return w.indexMessage(m)
}

// forget takes a message out of its case's shared rows.
func (w *writer) forget(old *store.Message) error {
	shared := map[string]bool{}
	for _, key := range referenceKeys(old) {
		shared[string(key)] = true
		if err := w.drop(messageIDs, key); err != nil {
			return err
		}
	}
	for _, u := range uses(old) {
		shared[string(u.key)] = true
		if err := w.drop(cases, u.key); err != nil {
			return err
		}
	}
	var ids []store.ID
	for k := range w.rows(cases, ofCase(old.Case, ofMessages), nil) {
		ids = append(ids, store.ID(k[caseRow:]))
	}
	for _, id := range ids {
		m, err := w.Message(id)
		if err != nil {
			return err
		}
		if m.Case != old.Case {
			continue // it is only shown there
		}
		if err := w.indexReferences(&m, shared); err != nil {
			return err
		}
		if err := w.indexUsage(&m, shared); err != nil {
			return err
		}
	}
	return nil
}

func exceptionRow(m *store.Message) [][]byte {
	if m.Exception == "" {
		return nil
	}
	return [][]byte{m.ID[:]}
}

// ordinalRow: ordinal 0 is the case's own. That two messages of a case have
// the same is not meant to be, so the id is part of the key.
func ordinalRow(m *store.Message) [][]byte {
	if m.Case == 0 || m.Ordinal == 0 {
		return nil
	}
	return [][]byte{ofCase(m.Case, ofOrdinals, binary.BigEndian.AppendUint32(nil, m.Ordinal), m.ID[:])}
}

func unresolvedRow(m *store.Message) [][]byte {
	if !hasUnresolved(m) {
		return nil
	}
	return [][]byte{m.ID[:]}
}

// hasUnresolved: somebody on the case should say who that is.
func hasUnresolved(m *store.Message) bool {
	return m.Case != 0 && slices.ContainsFunc(m.Parties, func(p store.Party) bool {
		return p.Party.Kind == store.Unresolved && takesPart(p.Role)
	})
}

// takesPart tells senders and recipients from the other roles.
func takesPart(r store.Role) bool {
	return r == store.RoleSender || r == store.RoleTo || r == store.RoleCC || r == store.RoleBCC
}

// timelineRows are those of its case, and of the further cases that show it.
func timelineRows(m *store.Message) (rows [][]byte) {
	if m.Case == 0 {
		return nil
	}
	rows = append(rows, ofCase(m.Case, ofMessages, m.ID[:]))
	for _, n := range m.AlsoOn {
		rows = append(rows, ofCase(n, ofMessages, m.ID[:]))
	}
	return rows
}

// sameIndex: every index row of the two is the same.
func sameIndex(a, b *store.Message) bool {
	return a.Case == b.Case && slices.Equal(a.AlsoOn, b.AlsoOn) && a.Ordinal == b.Ordinal && a.Exception == b.Exception &&
		a.MessageID == b.MessageID && a.DerivedID == b.DerivedID &&
		slices.Equal(a.References, b.References) && a.Direction == b.Direction &&
		a.ContentHash == b.ContentHash && a.SubmitHash == b.SubmitHash &&
		a.ReceivedAt.Equal(b.ReceivedAt) && slices.EqualFunc(uses(a), uses(b), sameUse)
}

// use is one address taking part in a message.
type use struct {
	key    []byte // of cases
	sender bool
}

func sameUse(a, b use) bool { return a.sender == b.sender && bytes.Equal(a.key, b.key) }

// uses lists the addresses that a message counts as used on its case: those of
// its sender and recipients, but never that of a forged sender.
func uses(m *store.Message) (list []use) {
	if m.Case == 0 {
		return nil
	}
	forged, at := map[string]bool{}, map[string]int{}
	if m.Identity == "forged" {
		for _, p := range m.Parties {
			if p.Role == store.RoleSender {
				forged[store.Key(p.AddressUsed)] = true
			}
		}
	}
	for _, p := range m.Parties {
		if !takesPart(p.Role) {
			continue
		}
		address := store.Key(p.AddressUsed)
		if address == "" || forged[address] {
			continue
		}
		i, again := at[address]
		if !again {
			i, at[address] = len(list), len(list)
			list = append(list, use{key: usedKey(m.Case, address)})
		}
		list[i].sender = list[i].sender || p.Role == store.RoleSender
	}
	return list
}

func usedKey(n uint64, address string) []byte {
	h := hashKey(address)
	return ofCase(n, ofUse, h[:])
}

// indexUsage notes the addresses a message used; only those in the set, if
// there is one.
func (w *writer) indexUsage(m *store.Message, only map[string]bool) error {
	for _, u := range uses(m) {
		if only != nil && !only[string(u.key)] {
			continue
		}
		was, err := w.usage(u.key)
		if err != nil {
			return err
		}
		now := addUsage(was, m.ReceivedAt, u.sender)
		if was != nil && *was == now {
			continue
		}
		v := appendUsage(w.room(2*timeSize+1+sealSize), now)
		if err := w.putRow(cases, u.key, w.seal(u.key, v)); err != nil {
			return err
		}
	}
	return nil
}

func addUsage(was *store.Usage, at time.Time, sender bool) store.Usage {
	at = at.UTC().Round(0)
	if was == nil {
		return store.Usage{First: at, Last: at, Sender: sender}
	}
	now := *was
	if at.Before(now.First) {
		now.First = at
	}
	if at.After(now.Last) {
		now.Last = at
	}
	now.Sender = now.Sender || sender
	return now
}

func appendUsage(b []byte, u store.Usage) []byte {
	b = appendTime(appendTime(b, u.First), u.Last)
	if u.Sender {
		return append(b, 1)
	}
	return append(b, 0)
}

// usage reads how an address was used; nil if it was not.
func (r *reader) usage(key []byte) (*store.Usage, error) {
	v, err := r.sealed(cases, key)
	if v == nil || err != nil {
		return nil, err
	}
	u := readUsage(v)
	return &u, nil
}

func readUsage(v []byte) store.Usage {
	f := newFields(v)
	return store.Usage{First: f.time(), Last: f.time(), Sender: f.byte() == 1}
}
