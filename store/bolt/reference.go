package bolt

import (
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/casegate/casegate/store"
)

// A Message-ID leads to the messages that bear it, and to the cases that have
// a message which names it: of each case the row holds the oldest such message.
const (
	refOwn   = 'o'
	refNamed = 'r'
)

// maxReferences is how many of the ids that a message names are indexed.
const maxReferences = 100

func ownKey(id string, m store.ID) []byte {
	h := hashKey(id)
	return append(append(h[:], refOwn), m[:]...)
}

func namedKey(id string, n uint64) []byte {
	h := hashKey(id)
	return binary.BigEndian.AppendUint64(append(h[:], refNamed), n)
}

// ownIDs are the ids by which a message itself is found.
func ownIDs(m *store.Message) (ids []string) {
	for _, id := range []string{m.MessageID, m.DerivedID} {
		if id != "" && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// referenceKeys are the rows of the ids that a message on a case names.
func referenceKeys(m *store.Message) (keys [][]byte) {
	if m.Case == 0 {
		return nil
	}
	for i, id := range m.References {
		if i == maxReferences {
			break
		}
		if key := namedKey(id, m.Case); !has(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// indexReferences makes the ids a message names lead to its case, unless an
// older message of the case has done so; only those in the set, if any.
func (w *writer) indexReferences(m *store.Message, only map[string]bool) error {
	for _, key := range referenceKeys(m) {
		if only != nil && !only[string(key)] {
			continue
		}
		v, err := w.sealed(messageIDs, key)
		if err != nil {
			return err
		}
		if v != nil && compareIDs(readRef(v).ID, m.ID) < 0 {
			continue
		}
		if err := w.putRow(messageIDs, key, w.sealRef(key, refOf(m, false))); err != nil {
			return err
		}
	}
	return nil
}

func refOf(m *store.Message, own bool) store.MessageRef {
	ref := store.MessageRef{ID: m.ID, Case: m.Case, Own: own, Direction: m.Direction, ReceivedAt: m.ReceivedAt}
	if own {
		ref.ContentHash, ref.SubmitHash = m.ContentHash, m.SubmitHash
	}
	return ref
}

// sealRef packs what a decision asks of a message: a tenth of its record.
func (w *writer) sealRef(key []byte, ref store.MessageRef) []byte {
	return w.seal(key, appendRef(w.room(160), ref))
}

func appendRef(b []byte, ref store.MessageRef) []byte {
	b = append(b, ref.ID[:]...)
	b = binary.AppendUvarint(b, ref.Case)
	b = appendBytes(b, []byte(ref.Direction))
	b = appendTime(b, ref.ReceivedAt)
	b = appendHash(b, ref.ContentHash)
	b = appendHash(b, ref.SubmitHash)
	if ref.Own {
		return append(b, refOwn)
	}
	return append(b, refNamed)
}

func readRef(v []byte) store.MessageRef {
	f := newFields(v)
	return store.MessageRef{
		ID: f.id(), Case: f.uint(), Direction: store.Direction(f.bytes()), ReceivedAt: f.time(),
		ContentHash: f.hash(), SubmitHash: f.hash(), Own: f.byte() == refOwn,
	}
}

// appendHash packs a hex digest as bytes, any other text as it is.
func appendHash(b []byte, s string) []byte {
	if raw, err := hex.DecodeString(s); err == nil && hex.EncodeToString(raw) == s {
		return appendBytes(append(b, 'h'), raw)
	}
	return appendBytes(append(b, 't'), []byte(s))
}

func (f *fields) hash() string {
	if f.byte() == 'h' {
		return hex.EncodeToString(f.bytes())
	}
	return string(f.bytes())
}

// refs lists where a Message-ID leads, oldest first; of those that bear it
// and of those that name it the newest MaxMessageRefs each.
func (r *reader) refs(id string) (list []store.MessageRef, err error) {
	h := hashKey(id)
	rows := 0
	for k, v := range r.rows(messageIDs, h[:], nil) { // mostly there is none, or one
		if rows++; rows > store.MaxMessageRefs {
			return r.newestRefs(h[:])
		}
		if v, err = r.unseal(messageIDs, k, v); err != nil {
			return nil, err
		}
		list = append(list, readRef(v))
	}
	sortRefs(list)
	return list, nil
}

func (r *reader) newestRefs(hash []byte) (list []store.MessageRef, err error) {
	for _, kind := range []byte{refOwn, refNamed} {
		n := 0
		for k, v := range r.newest(messageIDs, append(hash[:hashSize:hashSize], kind), nil) {
			if n++; n > store.MaxMessageRefs {
				break
			}
			if v, err = r.unseal(messageIDs, k, v); err != nil {
				return nil, err
			}
			list = append(list, readRef(v))
		}
	}
	sortRefs(list)
	return list, nil
}

func sortRefs(list []store.MessageRef) {
	slices.SortFunc(list, func(a, b store.MessageRef) int { return compareIDs(a.ID, b.ID) })
}
