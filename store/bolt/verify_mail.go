package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/casegate/casegate/store"
)

func (v *verifier) messageRow(r *reader, k, val []byte) {
	if isUnder(messages, k) {
		v.deliveryIndex(messages)(r, k, val)
		return
	}
	v.counts.Messages++
	m, ok := own[store.Message](v, r, messages, k, val)
	if !ok {
		return
	}
	name := fmt.Sprintf("message %s", m.ID)
	v.sameKey(k, m.ID, name)
	v.counts.Bytes += m.Archived.ReceivedSize
	if m.Exception != "" {
		v.counts.Exceptions++
	}
	v.need(r, exceptions, exceptionRow(&m), name)
	v.need(r, cases, ordinalRow(&m), name)
	v.need(r, unresolved, unresolvedRow(&m), name)
	if m.Case != 0 {
		v.exists(r, cases, ofCase(m.Case, ofRecord), name)
		v.need(r, cases, timelineRows(&m), name)
	}
	if !v.bad[messageIDs.String()] {
		for _, id := range ownIDs(&m) {
			v.sameRef(r, ownKey(id, m.ID), refOf(&m, true), name)
		}
	}
	if v.bad[archive.String()] {
		return
	}
	if r.row(archive, k) == nil {
		v.found(name, "it has no archived bytes")
		return
	}
	v.todo = append(v.todo, store.Message{ID: store.ID(k), Archived: m.Archived})
}

// rowOfCase looks at a row by its sort.
func (v *verifier) rowOfCase(r *reader, k, val []byte) {
	sort := byte(0)
	if len(k) >= caseRow {
		sort = k[caseRow-1]
	}
	switch rest := len(k) - caseRow; {
	case sort == ofRecord && rest == 0:
		v.caseRow(r, k, val)
	case sort == ofMessages && rest == 16:
		if m, ok := load[store.Message](v, r, messages, k[caseRow:], cases.String()); ok {
			v.stale(cases, k, timelineRows(&m))
		}
	case sort == ofOrdinals && rest == 4+16:
		if m, ok := load[store.Message](v, r, messages, k[caseRow+4:], cases.String()); ok {
			v.stale(cases, k, ordinalRow(&m))
		}
	case sort == ofUse && rest == hashSize:
		v.usedRow(r, k, val)
	case sort == ofDeliveries && rest == 16:
		v.deliveryIndex(cases)(r, k, val)
	case sort == ofLog && rest == 16:
		v.logRow(r, k, val)
	default:
		v.found(fmt.Sprintf("%s %x", cases, k), "not a row")
	}
}

func (v *verifier) exceptionRow(r *reader, k, reason []byte) {
	m, ok := load[store.Message](v, r, messages, k, exceptions.String())
	if ok && (m.Exception == "" || m.Exception != string(reason)) {
		v.stale(exceptions, k, nil)
	}
}

func (v *verifier) unresolvedRow(r *reader, k, _ []byte) {
	if m, ok := load[store.Message](v, r, messages, k, unresolved.String()); ok {
		v.stale(unresolved, k, unresolvedRow(&m))
	}
}

func (v *verifier) tallyRow(r *reader, k, val []byte) {
	_, err := r.unseal(tallies, k, val)
	if err != nil || len(k) != tallySize || tallyDay(readTime(k[4+hashSize:])) != binary.BigEndian.Uint32(k) {
		v.found(fmt.Sprintf("%s %x", tallies, k), "not a row")
	}
}

func (v *verifier) messageIDRow(r *reader, k, val []byte) {
	data, err := r.unseal(messageIDs, k, val)
	if err != nil || len(k) < hashSize+1 {
		v.found(fmt.Sprintf("%s %x", messageIDs, k), "%v", err)
		return
	}
	ref := readRef(data)
	m, ok := load[store.Message](v, r, messages, ref.ID[:], messageIDs.String())
	if !ok {
		return
	}
	rows := referenceKeys(&m)
	if k[hashSize] == refOwn {
		rows = nil
		for _, id := range ownIDs(&m) {
			rows = append(rows, ownKey(id, m.ID))
		}
	}
	v.stale(messageIDs, k, rows)
}

// usedRow: what a row says is looked at with its case.
func (v *verifier) usedRow(r *reader, k, val []byte) {
	if _, err := r.unseal(cases, k, val); err != nil {
		v.found(fmt.Sprintf("%s %x", cases, k), "%v", err)
		return
	}
	v.exists(r, cases, ofCase(caseOf(k), ofRecord), cases.String())
}

func (v *verifier) archiveRow(r *reader, k, val []byte) {
	name := fmt.Sprintf("archive of message %x", k)
	data, err := r.unseal(archive, k, val)
	if err != nil {
		v.found(name, "%v", err)
		return
	}
	a, err := unpack(data)
	if err != nil {
		v.found(name, "%v", err)
		return
	}
	v.exists(r, messages, k, name)
	if a.chunks > 0 {
		v.need(r, bodyOwners, [][]byte{join(a.body[:], k)}, name)
	}
}

// chunkRow: a chunk is a message's, or staged and swept some day.
func (v *verifier) chunkRow(r *reader, k, _ []byte) {
	name := fmt.Sprintf("chunk %x", k)
	if len(k) != 16+4 {
		v.found(name, "not a chunk")
		return
	}
	if v.bad[staged.String()] || v.bad[bodyOwners.String()] || v.bad[archive.String()] || r.row(staged, k[:16]) != nil {
		return
	}
	for owner := range r.rows(bodyOwners, k[:16], nil) {
		a, err := r.archivedRow(store.ID(owner[16:]))
		if err != nil {
			return // reported with the archive
		}
		if n := binary.BigEndian.Uint32(k[16:]); n >= a.chunks {
			v.found(name, "its body has %d", a.chunks)
		}
		return
	}
	v.found(name, "it belongs to no message")
}

func (v *verifier) ownerRow(r *reader, k, _ []byte) {
	name := fmt.Sprintf("%s %x", bodyOwners, k)
	if len(k) != 16+16 {
		v.found(name, "not a row")
		return
	}
	if v.bad[archive.String()] {
		return
	}
	if a, err := r.archivedRow(store.ID(k[16:])); err != nil || !bytes.Equal(a.body[:], k[:16]) {
		v.found(name, "its message has another body")
	}
}

func (v *verifier) deliveryRow(r *reader, k, val []byte) {
	v.counts.Deliveries++
	d, ok := own[store.Delivery](v, r, deliveries, k, val)
	if !ok {
		return
	}
	name := fmt.Sprintf("delivery %s", d.ID)
	v.sameKey(k, d.ID, name)
	v.exists(r, messages, d.Message[:], name)
	p := place(&d)
	for _, b := range []bucket{messages, cases, deliveryStates} {
		v.need(r, b, p.rowsIn(b), name)
	}
	if d.State != store.Queued {
		return
	}
	v.counts.Queued++
	if !v.bad[leases.String()] && r.row(leases, k) == nil {
		v.need(r, due, p.rowsIn(due), name)
		v.need(r, lanes, p.rowsIn(lanes), name)
	}
}

// waitRow is of due, or of lanes.
func (v *verifier) waitRow(b bucket, size int) func(r *reader, k, val []byte) {
	return func(r *reader, k, _ []byte) {
		name := fmt.Sprintf("%s %x", b, k)
		if len(k) != size {
			v.found(name, "not a row")
			return
		}
		id := k[size-16:]
		if d, ok := load[store.Delivery](v, r, deliveries, id, name); ok {
			v.stale(b, k, place(&d).rowsIn(b))
		}
		if !v.bad[leases.String()] && r.row(leases, id) != nil {
			v.found(name, "it is due and lent at once")
		}
	}
}

func (v *verifier) leaseRow(r *reader, k, val []byte) {
	name := fmt.Sprintf("%s %x", leases, k)
	if _, err := r.unseal(leases, k, val); err != nil {
		v.found(name, "%v", err)
	}
	v.exists(r, deliveries, k, name)
}

func (v *verifier) deliveryIndex(b bucket) func(r *reader, k, val []byte) {
	return func(r *reader, k, _ []byte) {
		name := fmt.Sprintf("%s %x", b, k)
		if len(k) < 16 {
			v.found(name, "not a row")
			return
		}
		if d, ok := load[store.Delivery](v, r, deliveries, k[len(k)-16:], name); ok {
			v.stale(b, k, place(&d).rowsIn(b))
		}
	}
}

func (v *verifier) logRow(r *reader, k, val []byte) {
	e, ok := own[store.LogEntry](v, r, cases, k, val)
	if !ok {
		return
	}
	name := fmt.Sprintf("log entry %s", e.ID)
	if !bytes.Equal(k, ofCase(e.Case, ofLog, e.ID[:])) {
		v.found(name, "it is stored as %x", k)
	}
	if e.Case != 0 {
		v.exists(r, cases, ofCase(e.Case, ofRecord), name)
	}
}
