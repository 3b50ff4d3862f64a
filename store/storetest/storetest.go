// Package storetest is the contract of package store as tests: one subtest
// for each promise. Every store passes Run; Faulty wraps a store to see what
// happens when it breaks.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/casegate/casegate/store"
)

// Opener makes an empty store for one test; the suite closes it.
type Opener func(t *testing.T) store.Store

// Reopener closes a store and opens the same data again, as a restart does.
type Reopener func(t *testing.T, st store.Store) store.Store

// Run checks that a store keeps the promises of package store.
func Run(t *testing.T, open Opener, reopen Reopener) {
	for _, promise := range promises() {
		t.Run(promise.name, func(t *testing.T) {
			s := &suite{T: t, Store: open(t), reopener: reopen, ctx: t.Context(), now: time.Now().UTC().Truncate(time.Second)}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Errorf("closing: %v", err)
				}
			})
			promise.check(s)
			s.verify()
		})
	}
}

type promise struct {
	name  string
	check func(*suite)
}

func promises() []promise {
	return append(append([]promise{
		{"AnUpdateIsSeenByViewsAndByItself", updateIsSeen},
		{"AFailedUpdateUndoesAllAndItsErrorIsReturned", failedUpdate},
		{"AFailedUpdateLeavesOthersAlone", failedAmongOthers},
		{"APanicFailsOnlyItsUpdate", panicking},
		{"ACancelledContextIsRefused", cancelled},
		{"ConcurrentUpdatesDoNotLoseEachOther", concurrent},
		{"AViewIsASnapshot", snapshot},
		{"WhatIsMissingIsNotFound", notFound},
		{"TheInstallationIsMadeOnceAndKept", installation},
		{"EverythingIsThereAfterARestart", restart},
		{"ClosingRefusesWhatComesLater", closing},
		{"VerifyFindsWhatIsDangling", dangling},
	}, recordPromises()...), append(append(mailPromises(), questionPromises()...), outboxPromises()...)...)
}

// suite is one test on a store of its own.
type suite struct {
	*testing.T
	store.Store
	reopener Reopener
	ctx      context.Context
	now      time.Time
	broken   bool // the data is meant to have findings
}

func (s *suite) ok(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) update(fn func(store.Tx) error) {
	s.Helper()
	s.ok(s.Update(s.ctx, fn))
}

func (s *suite) view(fn func(store.Reader) error) {
	s.Helper()
	s.ok(s.View(s.ctx, fn))
}

func (s *suite) restart() {
	s.Helper()
	if s.reopener == nil {
		s.Skip("this store can't be reopened")
	}
	s.Store = s.reopener(s.T, s.Store)
}

// same compares records; times by instant, nil and empty slices as one.
func (s *suite) same(what string, got, want any) {
	s.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		s.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func (s *suite) sameBytes(what string, got, want []byte) {
	s.Helper()
	if !bytes.Equal(got, want) {
		s.Errorf("%s: %d bytes, want %d others", what, len(got), len(want))
	}
}

// verify: whatever a test did, the store must be in order.
func (s *suite) verify() {
	s.Helper()
	if s.broken || s.Failed() {
		return
	}
	_, err := s.Verify(s.ctx, func(f store.Finding) { s.Errorf("verify: %s: %s", f.Record, f.What) })
	s.ok(err)
}

func (s *suite) findings() (list []store.Finding) {
	s.Helper()
	counts, err := s.Verify(s.ctx, func(f store.Finding) { list = append(list, f) })
	s.ok(err)
	if counts.Findings != len(list) {
		s.Errorf("%d findings counted, %d reported", counts.Findings, len(list))
	}
	return list
}

var errMeant = errors.New("meant to fail")

func updateIsSeen(s *suite) {
	ana := s.contact("Ana", "ana@x.example")
	s.update(func(tx store.Tx) error {
		if err := tx.PutContact(ana); err != nil {
			return err
		}
		got, err := tx.Contact(ana.ID)
		s.same("within the transaction", got, ana)
		return err
	})
	s.view(func(r store.Reader) error {
		got, err := r.Contact(ana.ID)
		s.same("afterwards", got, ana)
		return err
	})
}

func failedUpdate(s *suite) {
	ana := s.contact("Ana", "ana@x.example")
	err := s.Update(s.ctx, func(tx store.Tx) error {
		if err := tx.PutContact(ana); err != nil {
			return err
		}
		return errMeant
	})
	if err != errMeant {
		s.Errorf("error %v, want the function's own", err)
	}
	s.view(func(r store.Reader) error {
		if _, err := r.Contact(ana.ID); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("contact after a failed update: %v", err)
		}
		h, err := r.Holders("ana@x.example")
		s.same("holders after a failed update", h, store.Holders{})
		return err
	})
}

func failedAmongOthers(s *suite) {
	const n = 60
	list := make([]store.Contact, n)
	errs := make(chan error, n)
	for i := range list {
		list[i] = s.contact("someone", "shared@x.example")
		go func() {
			errs <- s.Update(s.ctx, func(tx store.Tx) error {
				if err := tx.PutContact(list[i]); err != nil {
					return err
				}
				if i%3 == 0 {
					return errMeant
				}
				return nil
			})
		}()
	}
	failed := 0
	for range n {
		if err := <-errs; errors.Is(err, errMeant) {
			failed++
		} else if err != nil {
			s.Error(err)
		}
	}
	if failed != n/3 {
		s.Errorf("%d updates failed, want %d", failed, n/3)
	}
	s.view(func(r store.Reader) error {
		for i, c := range list {
			if _, err := r.Contact(c.ID); errors.Is(err, store.ErrNotFound) != (i%3 == 0) {
				s.Errorf("contact %d: %v", i, err)
			}
		}
		return nil
	})
}

func panicking(s *suite) {
	ana := s.contact("Ana", "ana@x.example")
	err := s.Update(s.ctx, func(tx store.Tx) error {
		if err := tx.PutContact(ana); err != nil {
			return err
		}
		panic("meant to panic")
	})
	if err == nil {
		s.Error("a panic went unnoticed")
	}
	s.update(func(tx store.Tx) error {
		if _, err := tx.Contact(ana.ID); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("contact of a panicking update: %v", err)
		}
		return tx.PutContact(s.contact("Ben", "ben@x.example"))
	})
}

func cancelled(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	ran := false
	if err := s.Update(ctx, func(store.Tx) error { ran = true; return nil }); !errors.Is(err, context.Canceled) {
		s.Errorf("update: %v", err)
	}
	if err := s.View(ctx, func(store.Reader) error { ran = true; return nil }); !errors.Is(err, context.Canceled) {
		s.Errorf("view: %v", err)
	}
	if ran {
		s.Error("the function ran all the same")
	}
}

func concurrent(s *suite) {
	const n = 100
	numbers := make(chan uint64, n)
	for range n {
		go func() {
			var number uint64
			err := s.Update(s.ctx, func(tx store.Tx) (err error) {
				if number, err = s.ReserveCase(s.ctx); err != nil {
					return err
				}
				ana := s.contact("someone", "someone@x.example")
				if err := tx.PutContact(ana); err != nil {
					return err
				}
				return tx.PutCase(s.newCase(number, ana))
			})
			if err != nil {
				s.Error(err)
			}
			numbers <- number
		}()
	}
	seen := map[uint64]bool{}
	for range n {
		number := <-numbers
		if number == 0 || seen[number] {
			s.Errorf("case number %d was given out twice", number)
		}
		seen[number] = true
	}
	s.same("cases", len(s.cases(store.CaseFilter{})), n)
}

func snapshot(s *suite) {
	ana := s.contact("Ana", "ana@x.example")
	s.view(func(r store.Reader) error {
		done := make(chan error)
		go func() {
			done <- s.Update(s.ctx, func(tx store.Tx) error { return tx.PutContact(ana) })
		}()
		s.ok(<-done)
		if _, err := r.Contact(ana.ID); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("a view saw what was written after it began: %v", err)
		}
		return nil
	})
}

func notFound(s *suite) {
	id := store.NewID()
	s.view(func(r store.Reader) error {
		for name, err := range map[string]error{
			"case":     second(r.Case(7)),
			"contact":  second(r.Contact(id)),
			"account":  second(r.Account(id)),
			"agent":    second(r.Agent(id)),
			"message":  second(r.Message(id)),
			"delivery": second(r.Delivery(id)),
		} {
			if !errors.Is(err, store.ErrNotFound) {
				s.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := r.Header(id, store.AsReceived); !errors.Is(err, store.ErrNotFound) {
			s.Errorf("header: %v", err)
		}
		return nil
	})
	if _, err := s.Open(s.ctx, id, store.AsReceived); !errors.Is(err, store.ErrNotFound) {
		s.Errorf("open: %v", err)
	}
	if err := Settle(s.ctx, s, store.Delivery{ID: id}); !errors.Is(err, store.ErrNotFound) {
		s.Errorf("settle: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

func installation(s *suite) {
	get := func() (in store.Installation) {
		s.view(func(r store.Reader) (err error) { in, err = r.Installation(); return err })
		return in
	}
	first := get()
	if first.ID == (store.ID{}) || len(first.Keys) != 1 || first.Keys[0].ID != 1 || len(first.Keys[0].Secret) != 32 {
		s.Errorf("not a fresh installation: %+v", first)
	}
	more := first
	more.Keys = append(more.Keys, store.SigningKey{ID: 2, Secret: []byte("another"), CreatedAt: s.now})
	s.update(func(tx store.Tx) error { return tx.PutInstallation(more) })
	s.restart()
	s.same("installation", get(), more)
}

func restart(s *suite) {
	m := s.mail("ana@x.example", 300<<10)
	n := m.accept(s)
	s.restart()
	s.view(func(r store.Reader) error {
		got, err := r.Message(m.msg.ID)
		s.same("message", got, m.msg)
		if c, err := r.Case(n); err != nil || c.Customer != m.guest.ID {
			s.Errorf("case: %+v, %v", c, err)
		}
		return err
	})
	s.sameBytes("received", s.read(m.msg.ID, store.AsReceived), m.received())
	s.sameBytes("sent", s.read(m.msg.ID, store.AsSent), m.asSent())
	again := s.mail("ben@x.example", 10)
	if got := again.accept(s); got <= n {
		s.Errorf("case number %d after %d and a restart", got, n)
	}
}

func closing(s *suite) {
	s.ok(s.Close())
	if err := s.Update(s.ctx, func(store.Tx) error { return nil }); !errors.Is(err, store.ErrUnavailable) {
		s.Errorf("update: %v", err)
	}
	if err := s.View(s.ctx, func(store.Reader) error { return nil }); !errors.Is(err, store.ErrUnavailable) {
		s.Errorf("view: %v", err)
	}
	s.broken = true
}

func dangling(s *suite) {
	s.broken = true
	m := s.mail("ana@x.example", 10)
	m.accept(s)
	s.same("findings", s.findings(), []store.Finding(nil))
	s.update(func(tx store.Tx) error {
		return tx.Enqueue(s.delivery(store.NewID(), 0, s.now)) // of no message
	})
	if len(s.findings()) == 0 {
		s.Error("a delivery without a message was not found")
	}
	before := len(s.findings())
	lost := s.mail("ben@x.example", 10)
	lost.msg.Case = 0
	s.update(func(tx store.Tx) error { return tx.PutMessage(lost.msg) }) // without its bytes
	if len(s.findings()) <= before {
		s.Error("a message without its bytes was not found")
	}
	before = len(s.findings())
	m.msg.Archived.ReceivedSHA256 = m.msg.Archived.SentSHA256
	s.update(func(tx store.Tx) error { return tx.PutMessage(m.msg) })
	if len(s.findings()) <= before {
		s.Error("a wrong digest was not found")
	}
}
