package bolt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// fillAll makes a store with some of everything in it.
func fillAll(t *testing.T, path string) {
	t.Helper()
	ctx := context.Background()
	st := open(t, path, Options{})
	var numbers []uint64
	for i := range 60 {
		n, err := newLetter(uint64(i), []int{100, 3000, 20_000}[i%3]).accept(ctx, st)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	if _, err := newLetter(1000, 600<<10).accept(ctx, st); err != nil {
		t.Fatal(err)
	}
	err := st.Update(ctx, func(tx store.Tx) error {
		for i, n := range numbers[:20] {
			e := store.LogEntry{ID: store.NewID(), Case: n, SourceType: "Case changed", Text: "something"}
			a := store.Account{ID: store.NewID(), Name: "Firm", EmailAddresses: []string{fmt.Sprintf("f%d@x.example", i)}}
			g := store.Agent{ID: store.NewID(), Name: "Ann", EmailAddresses: []string{fmt.Sprintf("g%d@x.example", i)}}
			c, err := tx.Case(n)
			if i%3 == 0 {
				c.State, c.MergedInto = store.Cancelled, numbers[30]
			}
			x := store.Contact{ID: store.NewID(), Kind: store.Registered, External: fmt.Sprint("crm", i)}
			k := store.TallyKey{Kind: store.TallyOpened, Address: fmt.Sprintf("f%d@x.example", i)}
			if err := errors.Join(err, tx.PutContact(x), tx.Tally(k, time.Now()), tx.Record(e), tx.PutAccount(a), tx.PutAgent(g), tx.PutCase(c)); err != nil {
				return err
			}
		}
		return reply(tx, numbers)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Claim(ctx, time.Now().Add(time.Minute), time.Hour, 5, nil); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(st.Update(ctx, park), deliver(st)); err != nil {
		t.Fatal(err)
	}
	verifyClean(t, st)
	st.Close()
}

// park leaves some deliveries waiting in lanes.
func park(tx store.Tx) error {
	list, _, err := tx.Deliveries(store.DeliveryFilter{State: store.Queued}, store.Page{Limit: 40})
	for i, d := range list {
		d.Lane = fmt.Sprint("lane ", i%7)
		err = errors.Join(err, tx.Enqueue(d))
	}
	return err
}

// reply adds some answers and some exceptions.
func reply(tx store.Tx, numbers []uint64) error {
	for i := range 20 {
		l := newLetter(uint64(2000+i), 10)
		m := store.Message{ID: l.id, MessageID: l.messageID, References: []string{"root@x", "parent@x"}, Case: numbers[i], Ordinal: uint32(i%2) * 7,
			Parties: []store.Party{{Role: store.RoleSender, AddressUsed: l.from}}, ReceivedAt: time.Now()}
		if i%4 == 0 {
			m.Case, m.Ordinal, m.Exception = 0, 0, "flood"
		}
		m.Archived = store.Archived{ReceivedSHA256: l.digest, ReceivedSize: int64(len(l.header) + len(l.body))}
		b := &body{buf: l.body, size: int64(len(l.body)), sealed: true}
		if err := errors.Join(tx.PutMessage(m), tx.Archive(m.ID, l.header, nil, nil, b)); err != nil {
			return err
		}
	}
	return nil
}

// TestByteFlips changes one byte after another of a file: each is found, none
// panics. Bytes of pages that are free matter to nobody.
func TestByteFlips(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	fillAll(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := usedPages(t, path)
	flips := 1000
	if testing.Short() || raceEnabled {
		flips = 150
	}
	for range flips {
		at := used[rand.IntN(len(used))]*os.Getpagesize() + rand.IntN(os.Getpagesize())
		bad := whole[at] ^ byte(1+rand.IntN(255))
		flip(t, path, at, bad)
		if !noticed(t, path) {
			t.Errorf("byte %d of page %d: %x instead of %x was not found", at%os.Getpagesize(), at/os.Getpagesize(), bad, whole[at])
		}
		flip(t, path, at, whole[at])
	}
	verifyClean(t, open(t, path, Options{}))
}

// TestDamagedMetaIsLetGo: a file that can't be opened, for what is damaged in the
// bucket that says which version it has, is not left locked.
func TestDamagedMetaIsLetGo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	fillAll(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for name := []byte(meta.String()); ; {
		at := bytes.LastIndex(whole, name)
		if at < 0 {
			break
		}
		for i := at; i < min(at+60, len(whole)); i++ {
			flip(t, path, i, whole[i]^0x11)
			st, err := Open(path, Options{Logger: quiet(), Timeout: time.Millisecond})
			if errors.Is(err, store.ErrInUse) {
				t.Fatalf("byte %d: %v", i, err)
			}
			if err != nil {
				refused++
			} else {
				st.Close()
			}
			flip(t, path, i, whole[i])
		}
		whole = whole[:at]
	}
	if refused == 0 {
		t.Error("nothing was damaged")
	}
	verifyClean(t, open(t, path, Options{}))
}

// TestByteFlipsWhileOpen does so under an open store.
func TestByteFlipsWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "casegate.db")
	fillAll(t, path)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	used := usedPages(t, path)
	st := open(t, path, Options{})
	for range 100 {
		at := used[rand.IntN(len(used))]*os.Getpagesize() + rand.IntN(os.Getpagesize())
		flip(t, path, at, whole[at]^byte(1+rand.IntN(255)))
		counts, err := st.Verify(context.Background(), func(store.Finding) {})
		if err != nil || counts.Findings == 0 {
			t.Errorf("byte %d of page %d: %d findings, %v", at%os.Getpagesize(), at/os.Getpagesize(), counts.Findings, err)
		}
		flip(t, path, at, whole[at])
	}
	verifyClean(t, st)
}

// usedPages lists the pages that the newest transaction leads to.
func usedPages(t *testing.T, path string) (list []int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := mapFile(f, 0)
	if err != nil {
		t.Fatal(err)
	}
	metas, _ := readMetas(data)
	newest := metas[0]
	if metas[1].txid > newest.txid {
		newest = metas[1]
	}
	p := newPages(data, newest, func(found store.Finding) { t.Error(found) })
	tops, err := p.root(newest.root)
	if err != nil {
		t.Fatal(err)
	}
	for _, top := range tops {
		p.top(top)
	}
	p.seen[0] |= 3 // the meta pages
	for i := range newest.next {
		if p.seen[i/64]&(1<<(i%64)) != 0 {
			list = append(list, int(i))
		}
	}
	return list
}

func flip(t *testing.T, path string, at int, b byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{b}, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// noticed opens a damaged store and verifies it. A store that is open can
// still be asked, and is not written to if pages are lost.
func noticed(t *testing.T, path string) bool {
	t.Helper()
	st, err := Open(path, Options{Logger: quiet()})
	if err != nil {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, store.ErrSchema) {
			t.Errorf("opening: %v", err)
		}
		return true
	}
	defer st.Close()
	counts, err := st.Verify(context.Background(), func(store.Finding) {})
	if err != nil {
		t.Errorf("verify: %v", err)
	}
	readAll(st)
	if m := st.db.Load(); !m.damage.sound() {
		if err := put(st, contact("x")); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a damaged store was written to: %v", err)
		}
	}
	return counts.Findings > 0
}

// readAll asks for everything; that it comes back is enough.
func readAll(st *Store) {
	st.View(context.Background(), func(r store.Reader) error {
		list, _, _ := r.Messages(store.MessageFilter{}, store.Page{Limit: 1000})
		for _, m := range list {
			r.Header(m.ID, store.AsSent)
		}
		r.ByOrdinal(1, 1)
		r.ContactByExternal("crm1")
		r.Facts(store.Query{Tallies: []store.TallyKey{{Kind: store.TallyOpened, Address: "f1@x.example"}}, At: time.Now(), Cases: []uint64{1, 2, 3}, MessageIDs: []string{"root@x"}, Addresses: []string{"f1@x.example"}})
		return nil
	})
	st.NextDue(context.Background(), nil)
}
