package bolt

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/casegate/casegate/store"
)

// checks is what Verify asks of a row of each bucket.
func (v *verifier) checks() [bucketCount]func(r *reader, k, val []byte) {
	unchecked := func(*reader, []byte, []byte) {}
	return [bucketCount]func(r *reader, k, val []byte){
		meta: v.metaRow, cases: v.rowOfCase, caseStates: v.caseStateRow,
		contacts: v.contactRow, registered: v.registeredRow, accounts: v.accountRow, agents: v.agentRow,
		addresses: v.addressRow, externals: v.externalRow, messages: v.messageRow,
		exceptions: v.exceptionRow, unresolved: v.unresolvedRow, messageIDs: v.messageIDRow, archive: v.archiveRow,
		bodies: v.chunkRow, bodyOwners: v.ownerRow, staged: unchecked,
		deliveries: v.deliveryRow, due: v.waitRow(due, timeSize+16), lanes: v.waitRow(lanes, hashSize+timeSize+16), leases: v.leaseRow,
		deliveryStates: v.deliveryIndex(deliveryStates),
		tallies:        v.tallyRow,
	}
}

// load reads the record another row points at. ok is false if it can't be
// known or was reported.
func load[T any](v *verifier, r *reader, b bucket, key []byte, from string) (rec T, ok bool) {
	if v.bad[b.String()] {
		return rec, false
	}
	known, err := r.find(b, key, &rec)
	switch {
	case err != nil: // reported where that record is looked at
	case !known:
		v.found(from, "there is no %s %x", b, key)
	default:
		return rec, true
	}
	return rec, false
}

// exists is load for what only has to be there.
func (v *verifier) exists(r *reader, b bucket, key []byte, from string) {
	if !v.bad[b.String()] && r.row(b, key) == nil {
		v.found(from, "there is no %s %x", b, key)
	}
}

// own reads the record of the row being looked at.
func own[T any](v *verifier, r *reader, b bucket, k, val []byte) (rec T, ok bool) {
	rec, err := record[T](r, b, k, val)
	if err != nil {
		v.found(fmt.Sprintf("%s %x", b, k), "%v", err)
	}
	return rec, err == nil
}

// need reports index rows that are missing.
func (v *verifier) need(r *reader, b bucket, keys [][]byte, from string) {
	if v.bad[b.String()] {
		return
	}
	for _, key := range keys {
		if r.row(b, key) == nil {
			v.found(from, "no row of %s leads to it", b)
		}
	}
}

// stale reports an index row that its record does not account for.
func (v *verifier) stale(b bucket, k []byte, rows [][]byte) {
	if !has(rows, k) {
		v.found(fmt.Sprintf("%s %x", b, k), "leads to a record that says otherwise")
	}
}

func (v *verifier) metaRow(r *reader, k, val []byte) {
	if _, err := r.unseal(meta, k, val); err != nil {
		v.found(fmt.Sprintf("meta %q", k), "%v", err)
		return
	}
	switch string(k) {
	case keySchema:
	case keyInstallation:
		if in, ok := own[store.Installation](v, r, meta, k, val); ok {
			v.keys(in)
		}
	default:
		v.found(fmt.Sprintf("meta %q", k), "unknown row")
	}
}

func (v *verifier) keys(in store.Installation) {
	if len(in.Keys) == 0 {
		v.found("installation", "it has no signing key")
	}
	seen := map[byte]bool{}
	for _, key := range in.Keys {
		if seen[key.ID] || len(key.Secret) == 0 {
			v.found("installation", "signing key %d is empty or there twice", key.ID)
		}
		seen[key.ID] = true
	}
}

func (v *verifier) caseRow(r *reader, k, val []byte) {
	v.counts.Cases++
	c, ok := own[store.Case](v, r, cases, k, val)
	if !ok {
		return
	}
	name := fmt.Sprintf("case %d", c.Number)
	if !bytes.Equal(k, ofCase(c.Number, ofRecord)) {
		v.found(name, "it is stored as %x", k)
	}
	if !v.bad[caseStates.String()] {
		if queue := r.row(caseStates, caseState(&c)); queue == nil || string(queue) != c.Queue {
			v.found(name, "no row of %s leads to it", caseStates)
		}
	}
	v.need(r, contacts, [][]byte{caseCustomer(&c)}, name)
	v.exists(r, contacts, c.Customer[:], name+" customer")
	if c.MergedInto != 0 {
		v.exists(r, cases, ofCase(c.MergedInto, ofRecord), name+" merged into")
	}
	v.shared(r, c.Number, name)
}

// shared compares the rows that the messages of a case have in common with
// what these messages say.
func (v *verifier) shared(r *reader, n uint64, name string) {
	if v.bad[cases.String()] || v.bad[messages.String()] {
		return
	}
	refs, usage := map[string]store.Message{}, map[string]*store.Usage{}
	for k := range r.rows(cases, ofCase(n, ofMessages), nil) {
		var m store.Message
		if ok, err := r.find(messages, k[caseRow:], &m); !ok || err != nil {
			return // reported with the timeline, or the message
		}
		if m.Case != n {
			continue // it is only shown here
		}
		for _, key := range referenceKeys(&m) {
			if _, ok := refs[string(key)]; !ok {
				refs[string(key)] = m
			}
		}
		for _, u := range uses(&m) {
			now := addUsage(usage[string(u.key)], m.ReceivedAt, u.sender)
			usage[string(u.key)] = &now
		}
	}
	if !v.bad[messageIDs.String()] {
		for key, m := range refs {
			v.sameRef(r, []byte(key), refOf(&m, false), name)
		}
	}
	for k, val := range r.rows(cases, ofCase(n, ofUse), nil) {
		want, ok := usage[string(k)]
		if got, err := r.unseal(cases, k, val); err != nil || !ok || !bytes.Equal(got, appendUsage(nil, *want)) {
			v.found(name, "the use of an address (%x) is not what its messages say", k)
		}
		delete(usage, string(k))
	}
	if len(usage) > 0 {
		v.found(name, "the use of %d addresses is not noted", len(usage))
	}
}

// sameRef compares a row of message-ids with the message it comes from.
func (v *verifier) sameRef(r *reader, key []byte, ref store.MessageRef, name string) {
	val, err := r.sealed(messageIDs, key)
	switch {
	case err != nil:
		v.found(name, "%v", err)
	case val == nil:
		v.found(name, "no row of %s leads to it", messageIDs)
	case !bytes.Equal(val, appendRef(nil, ref)):
		v.found(name, "a row of %s (%x) says otherwise", messageIDs, key)
	}
}

func (v *verifier) caseStateRow(r *reader, k, val []byte) {
	if len(k) < 9 {
		v.found(fmt.Sprintf("%s %x", caseStates, k), "not a row")
		return
	}
	c, ok := load[store.Case](v, r, cases, join(k[len(k)-8:], []byte{ofRecord}), caseStates.String())
	if ok && (!bytes.Equal(k, caseState(&c)) || string(val) != c.Queue) {
		v.stale(caseStates, k, nil)
	}
}

func (v *verifier) caseCustomerRow(r *reader, k, _ []byte) {
	if len(k) != 16+1+8 || k[16] != underRecord {
		v.found(fmt.Sprintf("%s %x", contacts, k), "not a row")
		return
	}
	if c, ok := load[store.Case](v, r, cases, join(k[17:], []byte{ofRecord}), contacts.String()); ok {
		v.stale(contacts, k, [][]byte{caseCustomer(&c)})
	}
}

func (v *verifier) contactRow(r *reader, k, val []byte) {
	if isUnder(contacts, k) {
		v.caseCustomerRow(r, k, val)
		return
	}
	v.counts.Contacts++
	if c, ok := own[store.Contact](v, r, contacts, k, val); ok {
		name := fmt.Sprintf("contact %s", c.ID)
		v.sameKey(k, c.ID, name)
		v.need(r, addresses, contactRows(&c), name)
		v.need(r, registered, registeredRow(&c), name)
		v.need(r, externals, externalRow(&c), name)
		if err := r.free(&c); errors.Is(err, store.ErrTaken) {
			v.found(name, "%v", err)
		}
	}
}

func (v *verifier) externalRow(r *reader, k, _ []byte) {
	if len(k) != hashSize+16 {
		v.found(fmt.Sprintf("%s %x", externals, k), "not a row")
		return
	}
	if c, ok := load[store.Contact](v, r, contacts, k[hashSize:], externals.String()); ok {
		v.stale(externals, k, externalRow(&c))
	}
}

func (v *verifier) sameKey(k []byte, id store.ID, name string) {
	if !bytes.Equal(k, id[:]) {
		v.found(name, "it is stored as %x", k)
	}
}

func (v *verifier) registeredRow(r *reader, k, _ []byte) {
	if c, ok := load[store.Contact](v, r, contacts, k, registered.String()); ok {
		v.stale(registered, k, registeredRow(&c))
	}
}

func (v *verifier) accountRow(r *reader, k, val []byte) {
	if a, ok := own[store.Account](v, r, accounts, k, val); ok {
		name := fmt.Sprintf("account %s", a.ID)
		v.sameKey(k, a.ID, name)
		v.need(r, addresses, addressRows(a.EmailAddresses, heldAccount, a.ID), name)
	}
}

func (v *verifier) agentRow(r *reader, k, val []byte) {
	if a, ok := own[store.Agent](v, r, agents, k, val); ok {
		name := fmt.Sprintf("agent %s", a.ID)
		v.sameKey(k, a.ID, name)
		v.need(r, addresses, addressRows(a.EmailAddresses, heldAgent, a.ID), name)
	}
}

func (v *verifier) addressRow(r *reader, k, _ []byte) {
	name := fmt.Sprintf("%s %x", addresses, k)
	if len(k) != hashSize+1+16 {
		v.found(name, "not a row")
		return
	}
	id := k[hashSize+1:]
	switch k[hashSize] {
	case heldAccount:
		if a, ok := load[store.Account](v, r, accounts, id, name); ok {
			v.stale(addresses, k, addressRows(a.EmailAddresses, heldAccount, a.ID))
		}
	case heldAgent:
		if a, ok := load[store.Agent](v, r, agents, id, name); ok {
			v.stale(addresses, k, addressRows(a.EmailAddresses, heldAgent, a.ID))
		}
	default:
		if c, ok := load[store.Contact](v, r, contacts, id, name); ok {
			v.stale(addresses, k, contactRows(&c))
		}
	}
}
