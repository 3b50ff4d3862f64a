package bolt

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/casegate/casegate/store"
)

// A row of tallies is one event. Its key begins with the day, so that what is
// over is all in one place, whoever it was about, and the rows that are alive
// are few and near each other. Nothing else tells of an event, so its value is
// a checksum.

// tallySweep is how many rows of days gone by one call removes: more than it
// adds.
const tallySweep = 4

func tallyDay(t time.Time) uint32 { return uint32(max(t.Unix(), 0) / (24 * 60 * 60)) }

// tallyPrefix is what the events of a key on one day have in common.
func tallyPrefix(k store.TallyKey, day uint32) []byte {
	name := string(k.Kind) + "\x00" + k.Address
	if k.Case != 0 {
		name += "\x00" + strconv.FormatUint(k.Case, 10)
	}
	h := hashKey(name)
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, tallySize), day), h[:]...)
}

const tallySize = 4 + hashSize + timeSize + 4

// tally reads the events of a key since TallyWindow before a time, newest
// first.
func (r *reader) tally(k store.TallyKey, at time.Time) (events []time.Time, err error) {
	since := at.Add(-store.TallyWindow)
	today := tallyDay(at)
	prefix := tallyPrefix(k, today)
	for _, day := range []uint32{today + 1, today, today - 1} {
		binary.BigEndian.PutUint32(prefix, day)
		for row, v := range r.newest(tallies, prefix, nil) {
			if _, err := r.unseal(tallies, row, v); err != nil {
				return nil, err
			}
			event := readTime(row[len(prefix):])
			if !event.After(since) || len(events) == store.MaxTally {
				return events, nil
			}
			events = append(events, event)
		}
	}
	return events, nil
}

// Tally tells events of the same instant apart by chance.
func (w *writer) Tally(k store.TallyKey, at time.Time) error {
	today := tallyDay(at)
	key := binary.BigEndian.AppendUint32(appendTime(tallyPrefix(k, today), at), rand.Uint32())
	if err := w.putSealed(tallies, key, nil); err != nil {
		return err
	}
	var over [][]byte
	for row := range w.rows(tallies, nil, nil) {
		if len(over) == tallySweep || binary.BigEndian.Uint32(row)+1 >= today {
			break
		}
		over = append(over, bytes.Clone(row))
	}
	for _, row := range over {
		if err := w.drop(tallies, row); err != nil {
			return err
		}
	}
	return nil
}
