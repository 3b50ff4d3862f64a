package bolt

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"github.com/casegate/casegate/store"
	"github.com/casegate/casegate/store/storetest"
)

// letter is a mail from somebody unknown, ready to open a case.
type letter struct {
	id, guest, delivery store.ID
	messageID, from     string
	header, stamp, body []byte
	digest, content     string
}

func newLetter(n uint64, size int) *letter {
	l := &letter{
		id: store.NewID(), guest: store.NewID(), delivery: store.NewID(),
		messageID: fmt.Sprintf("%d.%x@mail.example", n, n*0x9e3779b97f4a7c15),
		from:      fmt.Sprintf("citizen.%x@example.org", n*0x9e3779b97f4a7c15),
	}
	line := "a letter about the street lamp in front of number " + fmt.Sprint(n) + "\r\n"
	l.body = []byte(strings.Repeat(line, size/len(line)+1)[:size])
	l.header = []byte("Received: from mx.example (mx.example [192.0.2.1]) by gw.city.example with ESMTPS;\r\n Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: Citizen <" + l.from +
		">\r\nTo: 311@city.example\r\nSubject: street lamp\r\nMessage-ID: <" + l.messageID + ">\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n")
	l.stamp = []byte("X-Case-Ref: CG1ABCDEFGHIJKLMNOPQRSTUVWXYZ234\r\nX-Case-Customer: " + l.guest.String() + "; guest\r\nX-Case-Decision: T0, I26\r\n")
	sum := sha256.New()
	sum.Write(l.header)
	sum.Write(l.body)
	l.digest = hex.EncodeToString(sum.Sum(nil))
	l.content = l.digest
	return l
}

// accept does what the inbound pipeline does with it.
func (l *letter) accept(ctx context.Context, st store.Store) (uint64, error) {
	body, err := st.Stage(ctx)
	if err != nil {
		return 0, err
	}
	defer body.Discard()
	if _, err := body.Write(l.body); err != nil {
		return 0, err
	}
	if err := body.Seal(ctx); err != nil {
		return 0, err
	}
	var n uint64
	err = st.Update(ctx, func(tx store.Tx) error {
		if n, err = st.ReserveCase(ctx); err != nil {
			return err
		}
		return l.decide(tx, n, body)
	})
	return n, err
}

func (l *letter) decide(tx store.Tx, n uint64, body store.Body) error {
	f, err := tx.Facts(store.Query{MessageIDs: []string{l.messageID}, Addresses: []string{l.from, "311@city.example"}})
	if err != nil {
		return err
	}
	if len(f.MessageIDs[l.messageID]) > 0 {
		return fmt.Errorf("message %s came twice", l.messageID)
	}
	return l.record(tx, n, body)
}

func (l *letter) record(tx store.Tx, n uint64, body store.Body) error {
	now := time.Now()
	sent := append(append([]byte{}, l.stamp...), l.header...)
	who := store.PartyRef{Kind: store.PartyContact, ID: l.guest}
	steps := []func() error{
		func() error {
			return tx.PutContact(store.Contact{ID: l.guest, Kind: store.Guest, Name: "Citizen",
				EmailAddresses: []store.EmailAddress{{Address: l.from}}, CreatedAt: now})
		},
		func() error {
			return tx.PutCase(store.Case{ID: store.NewID(), Number: n, Title: "street lamp", State: store.Active, Origin: "Email",
				Queue: "general", Mailbox: "311@city.example", Customer: l.guest, Ordinal: 1, CreatedAt: now, UpdatedAt: now})
		},
		func() error {
			return tx.PutMessage(store.Message{
				ID: l.id, MessageID: l.messageID, Direction: store.Incoming, Case: n, Ordinal: 1, Subject: "street lamp",
				From: l.from, Class: "human", Identity: "unknown", CorrelationMethod: "none",
				Parties: []store.Party{
					{Role: store.RoleSender, AddressUsed: l.from, Name: "Citizen", Party: who, Why: "new guest (rule I26)"},
					{Role: store.RoleTo, AddressUsed: "311@city.example", Party: store.PartyRef{Kind: store.PartyMailbox, Address: "311@city.example"}, Why: "our mailbox 311@city.example"},
					{Role: store.RoleCustomer, AddressUsed: l.from, Party: who, Why: "the case's customer"},
					{Role: store.RoleRelated, AddressUsed: l.from, Party: who, Why: "has the address"},
				},
				Links: []store.Link{{Address: l.from}},
				Decision: store.Decision{Rules: []string{"T0", "I26"}, Reasons: []string{
					"no token was found", "no Message-ID it names is known", "nobody has the address " + l.from,
					"nothing marks it as automatic", "I26: a new case with a new guest", "queue general by mailbox 311@city.example"}},
				Envelope:   store.Envelope{Listener: "inbound", Peer: "192.0.2.1", Helo: "mx.example", From: l.from, Recipients: []string{"311@city.example"}},
				Mailboxes:  []string{"311@city.example"},
				Archived:   store.Archived{ReceivedSHA256: l.digest, ReceivedSize: int64(len(l.header) + len(l.body)), SentSHA256: "", SentSize: 0},
				ReceivedAt: now, ContentHash: l.content,
			})
		},
		func() error { return tx.Archive(l.id, l.header, sent, nil, body) },
		func() error {
			return tx.Enqueue(store.Delivery{ID: l.delivery, Message: l.id, Case: n, Role: "inbound", Mailbox: "311@city.example",
				From: l.from, Submitter: l.from, Recipients: []store.Recipient{{Address: "311@city.example", State: store.Queued}},
				State: store.Queued, Due: now, CreatedAt: now})
		},
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// BenchmarkUpdateParallel is new-case mail by so many sessions at once.
func BenchmarkUpdateParallel(b *testing.B) {
	for _, sessions := range []int{1, 10, 50} {
		for _, size := range []int{2 << 10, 50 << 10} {
			b.Run(fmt.Sprintf("sessions=%d/body=%dK", sessions, size>>10), func(b *testing.B) {
				benchUpdate(b, sessions, size)
			})
		}
	}
}

func benchUpdate(b *testing.B, sessions, size int) {
	var commits atomic.Int64
	st, err := Open(b.TempDir()+"/bench.db", Options{commit: func(tx *bbolt.Tx) error {
		commits.Add(1)
		return tx.Commit()
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	letters := make([]*letter, b.N)
	for i := range letters {
		letters[i] = newLetter(uint64(i), size)
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	began, done := time.Now(), busy(b)
	for range sessions {
		wg.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(b.N) {
					return
				}
				if _, err := letters[i].accept(context.Background(), st); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	b.StopTimer()
	done()
	b.ReportMetric(float64(b.N)/took.Seconds(), "msgs/s")
	b.ReportMetric(float64(commits.Load())/took.Seconds(), "commits/s")
	b.ReportMetric(float64(b.N)/float64(commits.Load()), "msgs/commit")
}

// busy reports what of a processor each turn took, from now until it is called:
// unlike the clock that does not count what else the machine does.
func busy(b *testing.B) (done func()) {
	used := func() int64 {
		var u unix.Rusage
		unix.Getrusage(unix.RUSAGE_SELF, &u)
		return u.Utime.Nano() + u.Stime.Nano()
	}
	before := used()
	return func() { b.ReportMetric(float64(used()-before)/float64(b.N)/1e3, "cpu-µs/op") }
}

// BenchmarkFacts asks what the decision on an answer asks, in a store with
// some history.
func BenchmarkFacts(b *testing.B) {
	st, err := Open(b.TempDir()+"/bench.db", Options{Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	letters := acceptMany(b, st, 4000)
	for _, parents := range []bool{false, true} {
		b.Run(fmt.Sprintf("parents=%v", parents), func(b *testing.B) {
			b.ReportAllocs()
			defer busy(b)()
			st.View(context.Background(), func(r store.Reader) error {
				for i := range b.N {
					l := letters[i%len(letters)]
					q := store.Query{Cases: []uint64{uint64(i%1000 + 1)}, MessageIDs: []string{"new@x", l.messageID, "other@x"},
						Addresses: []string{l.from, "311@city.example", "friend@x.example"}, Parents: parents}
					if f, err := r.Facts(q); err != nil || len(f.MessageIDs) != 1 {
						b.Fatal(f, err)
					}
				}
				return nil
			})
		})
	}
}

// acceptMany accepts so many letters.
func acceptMany(b *testing.B, st store.Store, n int) []*letter {
	b.Helper()
	var wg sync.WaitGroup
	letters := make([]*letter, n)
	for i := range letters {
		letters[i] = newLetter(uint64(i), 500)
	}
	for p := range 40 {
		wg.Go(func() {
			for i := p; i < len(letters); i += 40 {
				if _, err := letters[i].accept(context.Background(), st); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return letters
}

// BenchmarkSettleParallel is a relay at work: workers that claim a few
// deliveries and settle each by itself.
func BenchmarkSettleParallel(b *testing.B) {
	ctx := context.Background()
	st, err := Open(b.TempDir()+"/bench.db", Options{Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	fillOutbox(b, st, b.N)
	var wg sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for range 20 {
		wg.Go(func() {
			for {
				list, err := st.Claim(ctx, time.Now(), time.Minute, 10, nil)
				if err != nil {
					b.Error(err)
				}
				if len(list) == 0 {
					return
				}
				for _, d := range list {
					d.State = store.Delivered
					d.Attempts = append(d.Attempts, store.Attempt{At: time.Now(), NextHop: "mx.example:25", Result: "delivered", Reply: "250 2.0.0 ok"})
					if err := storetest.Settle(ctx, st, d); err != nil {
						b.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "deliveries/s")
}

func fillOutbox(b *testing.B, st *Store, n int) {
	for done := 0; done < n; done += 500 {
		err := st.Update(context.Background(), func(tx store.Tx) error {
			for i := done; i < min(done+500, n); i++ {
				d := store.Delivery{ID: store.NewID(), Message: store.NewID(), Case: uint64(i), State: store.Queued, Due: time.Now(),
					Recipients: []store.Recipient{{Address: "311@city.example", State: store.Queued}}}
				if err := tx.Enqueue(d); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTransaction is what the functions of Updates cost, without the
// commit that they share: facts, and the rows of a new case.
func BenchmarkTransaction(b *testing.B) {
	ctx := context.Background()
	st, err := Open(b.TempDir()+"/bench.db", Options{Logger: quiet()})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	acceptMany(b, st, 4000)
	st.opts.commit = func(tx *bbolt.Tx) error { return tx.Rollback() }
	const together = 40
	var letters [together]*letter
	var bodies [together]store.Body
	for i := range letters {
		letters[i] = newLetter(uint64(i+10_000), 2<<10)
		if bodies[i], err = st.Stage(ctx); err != nil {
			b.Fatal(err)
		}
		bodies[i].Write(letters[i].body)
		bodies[i].Seal(ctx)
		defer bodies[i].Discard()
	}
	b.ReportAllocs()
	b.ResetTimer()
	defer busy(b)()
	for done := 0; done < b.N; done += together {
		err := st.Update(ctx, func(tx store.Tx) error {
			for i, l := range letters {
				if err := l.decide(tx, uint64(10_000+i), bodies[i]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFactsBySize asks what the decision on an answer of a known person
// asks, with a token and References, in stores that have n contacts and n/10
// cases with a mail each. It should hardly grow. A million contacts only with
// CASEGATE_BENCH_LARGE=1.
func BenchmarkFactsBySize(b *testing.B) {
	sizes := []int{1000, 30_000}
	if os.Getenv("CASEGATE_BENCH_LARGE") == "1" {
		sizes = append(sizes, 1_000_000)
	}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("contacts=%d", n), func(b *testing.B) { benchFactsBySize(b, n) })
	}
}

func benchFactsBySize(b *testing.B, n int) {
	ctx := context.Background()
	st, err := Open(b.TempDir()+"/bench.db", Options{Logger: quiet(), commit: func(tx *bbolt.Tx) error {
		tx.DB().NoSync = true // only what is read matters
		return tx.Commit()
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	now := time.Now()
	for done := 0; done < n; done += 1000 {
		if err := st.Update(ctx, func(tx store.Tx) error { return populate(tx, done, 1000, now) }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	defer busy(b)()
	err = st.View(ctx, func(r store.Reader) error {
		for i := range b.N {
			c := i * 7919 % (n / 10)
			who, q := person(10*c), answerTo(c, now)
			f, err := r.Facts(q)
			if err != nil {
				return err
			}
			if len(f.Holders[who].Contacts) != 1 || len(f.Cases) != 1 || len(f.Tallies) != 1 {
				return fmt.Errorf("facts about %s: %+v", who, f)
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
}

func person(i int) string { return fmt.Sprintf("citizen.%x@example.org", uint64(i)*0x9e3779b97f4a7c15) }

func mailID(c int) string { return fmt.Sprintf("%x@mail.example", uint64(c)*0x9e3779b97f4a7c15) }

// answerTo is what an answer to the mail of case c+1 asks.
func answerTo(c int, now time.Time) store.Query {
	who := person(10 * c)
	return store.Query{
		Cases:      []uint64{uint64(c + 1)},
		MessageIDs: []string{"new@mail.example", mailID(c), "root@mail.example"},
		Addresses:  []string{who, "311@city.example", "friend@x.example"},
		Tallies:    []store.TallyKey{{Kind: store.TallyOpened, Address: who}},
		At:         now,
	}
}

// populate makes contacts, every tenth with a case and the mail that opened it.
func populate(tx store.Tx, from, n int, now time.Time) error {
	for i := from; i < from+n; i++ {
		c := store.Contact{ID: store.NewID(), Kind: store.Registered, Name: "Citizen",
			EmailAddresses: []store.EmailAddress{{Address: person(i)}}, CreatedAt: now}
		if err := tx.PutContact(c); err != nil {
			return err
		}
		if i%10 != 0 {
			continue
		}
		number := uint64(i/10 + 1)
		err := errors.Join(
			tx.PutCase(store.Case{ID: store.NewID(), Number: number, Title: "street lamp", State: store.Active, Origin: "Email",
				Queue: "general", Customer: c.ID, Ordinal: 1, CreatedAt: now, UpdatedAt: now}),
			tx.PutMessage(store.Message{ID: store.NewID(), MessageID: mailID(i / 10), Direction: store.Incoming, Case: number, Ordinal: 1,
				Parties:    []store.Party{{Role: store.RoleSender, AddressUsed: person(i)}, {Role: store.RoleTo, AddressUsed: "311@city.example"}},
				ReceivedAt: now}),
			tx.Tally(store.TallyKey{Kind: store.TallyOpened, Address: person(i)}, now))
		if err != nil {
			return err
		}
	}
	return nil
}
