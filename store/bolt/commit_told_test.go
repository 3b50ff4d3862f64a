package bolt

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// TestCommitsAreTold: of each commit, in their order, how long it took, how many
// updates were in it, and what went wrong. The disk is slow, in virtual time.
func TestCommitsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := []Commit{
			{3 * time.Second, 1, nil},
			{500 * time.Millisecond, 2, nil},
			{70 * time.Millisecond, 1, nil},
			{40 * time.Millisecond, 2, nil},
			{time.Second, 1, nil},
			{20 * time.Millisecond, 2, syscall.ENOSPC}, // then each of the two alone
			{10 * time.Millisecond, 1, nil},
			{15 * time.Millisecond, 1, syscall.ENOSPC},
			{time.Minute, 1, syscall.EIO},
		}
		st := open(t, filepath.Join(t.TempDir(), "casegate.db"), Options{})
		var got []Commit
		st.opts.commit = func(tx *bbolt.Tx) error {
			now := disk[len(got)]
			time.Sleep(now.Took)
			if now.Err != nil {
				return now.Err
			}
			return tx.Commit()
		}
		st.OnCommit(func(c Commit) { got = append(got, c) })
		bad := errors.New("bad")
		good := func(tx store.Tx) error { return tx.PutContact(contact("x")) }
		idle := func(store.Tx) error { return nil }
		refused := func(store.Tx) error { return bad }
		undone := func(tx store.Tx) error { return errors.Join(good(tx), bad) }
		come := func(updates ...func(store.Tx) error) { // in this order
			for _, fn := range updates {
				go st.Update(context.Background(), fn)
				synctest.Wait()
			}
		}
		come(good)
		come(good, idle, refused, good) // while the first commit is made
		time.Sleep(3100 * time.Millisecond)
		come(good, undone, good, good) // while the second is: who fails ends a batch
		time.Sleep(time.Second)
		come(idle, refused) // nothing to commit
		come(good)
		come(good, good)
		time.Sleep(2 * time.Second)
		come(good)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		same := func(want, got error) bool {
			return errors.Is(got, want) && (want != syscall.ENOSPC || errors.Is(got, store.ErrFull))
		}
		if !slices.EqualFunc(disk, got, func(want, got Commit) bool {
			return want.Took == got.Took && want.Updates == got.Updates && same(want.Err, got.Err)
		}) {
			t.Errorf("want %v\n got %v", disk, got)
		}
	})
}
