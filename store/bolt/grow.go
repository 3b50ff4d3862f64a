package bolt

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/casegate/casegate/store"
)

// commit makes a batch durable. Of its errors, store.ErrFull means that
// nothing was changed; any other that nobody knows.
func (b *batch) commit() error {
	tx := b.w.bolt
	if tx.DB() == nil {
		return errors.New("the transaction is over")
	}
	if b.w.puts == 0 {
		return tx.Rollback()
	}
	used, id := tx.Size(), tx.ID()
	if err := b.reserve(used); err != nil {
		tx.Rollback()
		return err
	}
	err := guard(func() error { return b.st.opts.commit(tx) })
	if err == nil {
		return nil
	}
	if tx.DB() != nil {
		guard(tx.Rollback)
	}
	return b.failed(err, used, id)
}

// failed tells a commit that stopped for want of room, before it wrote its
// meta page, from all others: the transaction number has not moved.
func (b *batch) failed(cause error, used int64, id int) error {
	err := full(cause)
	if !errors.Is(err, store.ErrFull) && !strings.Contains(cause.Error(), syscall.ENOSPC.Error()) {
		return cause
	}
	tx, beginErr := b.m.db.Begin(false)
	if beginErr != nil {
		return errors.Join(cause, beginErr)
	}
	defer tx.Rollback()
	if tx.ID() >= id {
		return cause
	}
	// What bbolt added to the file is empty: give it back, or the next commit
	// would take it for room.
	if err := b.m.file.Truncate(used); err != nil {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrFull, cause)
}

const (
	minGrowth = 1 << 20
	maxGrowth = 64 << 20
	leftOver  = 1 << 20
)

// reserve makes sure, before anything is written, that the file has room for
// what the commit may append to it. The room is allocated for good: a write
// into a file with holes finds out in the middle that the disk is full.
func (b *batch) reserve(used int64) error {
	info, err := b.m.file.Stat()
	if err != nil {
		return err
	}
	need := b.w.need(used, int64(b.m.db.Info().PageSize))
	if used+need <= info.Size() {
		return nil
	}
	ahead := min(max(used, minGrowth), maxGrowth)
	err = b.st.grow(b.m.file, info.Size(), used+need+ahead)
	if errors.Is(err, store.ErrFull) {
		err = b.st.grow(b.m.file, info.Size(), used+need)
	}
	if errors.Is(err, store.ErrFull) && b.reusable() >= need+3*int64(b.w.large) {
		return nil // pages that are free inside the file will do
	}
	return err
}

// need is more than a commit will append: every row may dirty a page (there
// are no more than the file has), every value is copied, and the pages above
// them change too. Mail leaves some room over, so that a full store can still
// settle deliveries and sweep.
func (w *writer) need(used, page int64) int64 {
	n := int64(w.bytes)*9/8 + min(int64(w.puts)*page, used+int64(w.bytes)) + 64*page
	if w.mail {
		n += leftOver
	}
	return n
}

// reusable is how many bytes of free pages the file has.
func (b *batch) reusable() int64 {
	stats := b.m.db.Stats()
	return int64(stats.FreePageN+stats.PendingPageN) * int64(b.m.db.Info().PageSize)
}

// grow extends the file. Its new size is on disk before a page beyond the old
// one is used.
func (s *Store) grow(f *os.File, from, to int64) error {
	if s.opts.MaxSize > 0 && to > s.opts.MaxSize {
		return fmt.Errorf("%w: the file would pass its limit of %d bytes", store.ErrFull, s.opts.MaxSize)
	}
	if err := allocate(f, from, to-from); err != nil {
		f.Truncate(from) // what it got before it failed
		return full(err)
	}
	return f.Sync()
}
