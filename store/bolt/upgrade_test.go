package bolt

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/casegate/casegate/store"
)

// schema1 unpacks a store that was written when the schema was 1: 12 cases, of
// which six have an entry in their log and four a second mail.
func schema1(t *testing.T) (path string) {
	t.Helper()
	packed, err := os.Open("../../testdata/stores/schema-1.db.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(t.TempDir(), "casegate.db")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUpgradeFromSchema1(t *testing.T) {
	path := schema1(t)
	for n := range uint64(2) { // the second time there is nothing to do
		st := open(t, path, Options{})
		verifyClean(t, st)
		lookAtSchema1(t, st)
		if _, err := newLetter(77+n, 100).accept(context.Background(), st); err != nil {
			t.Fatal(err)
		}
		st.Close()
	}
}

func lookAtSchema1(t *testing.T, st *Store) {
	t.Helper()
	err := st.View(context.Background(), func(r store.Reader) error {
		list, _, err := r.Cases(store.CaseFilter{}, store.Page{Limit: 100})
		if err != nil {
			return err
		}
		if len(list) < 12 {
			return fmt.Errorf("%d cases", len(list))
		}
		for _, c := range list[len(list)-12:] { // the newest come first
			mail, _, err1 := r.Messages(store.MessageFilter{Case: c.Number}, store.Page{})
			out, _, err2 := r.Deliveries(store.DeliveryFilter{Case: c.Number}, store.Page{})
			again, _, err3 := r.Deliveries(store.DeliveryFilter{Message: mail[0].ID}, store.Page{})
			log, _, err4 := r.Log(c.Number, store.Page{})
			his, _, err5 := r.Cases(store.CaseFilter{Customer: c.Customer}, store.Page{})
			if err := errors.Join(err1, err2, err3, err4, err5); err != nil {
				return err
			}
			wantMail, wantLog := 1, 0
			switch c.Number {
			case 1, 5:
				wantLog = 1
			case 2, 3, 4, 6:
				wantMail, wantLog = 2, 1
			}
			if len(mail) != wantMail || len(out) != 1 || len(again) != 1 || len(log) != wantLog || len(his) != 1 {
				t.Errorf("case %d: %d messages, %d and %d deliveries, %d entries, %d cases of its customer",
					c.Number, len(mail), len(out), len(again), len(log), len(his))
			}
		}
		own, _, err := r.Log(0, store.Page{})
		if err != nil || len(own) != 1 {
			t.Errorf("the installation's log: %v, %v", own, err)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// A crash at any point of the upgrade: the next start goes on.
func TestUpgradeGoesOn(t *testing.T) {
	for stop := range len(movedSince1()) + 1 {
		path := schema1(t)
		half := &Store{path: path, opts: Options{}.withDefaults(), log: quiet()}
		var err error
		if half.codec, err = newCodec(); err != nil {
			t.Fatal(err)
		}
		if err := half.mount(false); err != nil {
			t.Fatal(err)
		}
		m := half.db.Load()
		for _, b := range movedSince1()[:stop] {
			if _, err := half.move(m, b); err != nil {
				t.Fatal(err)
			}
		}
		m.db.Close()
		st := open(t, path, Options{})
		verifyClean(t, st)
		lookAtSchema1(t, st)
		st.Close()
	}
}

// What can't be read can't be brought forward; the file stays as it is.
func TestUpgradeOfADamagedFile(t *testing.T) {
	path := schema1(t)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte("log"))
		k, v := b.Cursor().First()
		torn := append([]byte(nil), v...)
		torn[3] ^= 1
		return b.Put(k, torn)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{Logger: quiet()}); !errors.Is(err, ErrDamaged) {
		t.Errorf("error %v", err)
	}
}
