package storetest

import (
	"context"
	"sync"
	"time"

	"github.com/casegate/casegate/store"
)

func outboxPromises() []promise {
	return []promise{
		{"WhatIsDueIsClaimedInOrderAndOnce", claimInOrder},
		{"ClaimsByManyDoNotOverlap", claimByMany},
		{"AClaimThatEndsComesBackInterrupted", claimEnds},
		{"AClaimComesBackAfterARestart", claimRestart},
		{"SettledDeliveriesWaitOrRest", settle},
		{"HeldDeliveriesAreNotClaimed", hold},
		{"NextDueIsTheEarliest", nextDue},
		{"ALaneWithoutRoomKeepsNobodyWaiting", claimLanes},
		{"DeliveriesAreFoundByWhatTheyAre", listDeliveries},
	}
}

// queue enqueues deliveries of one message, due a second after each other.
func (s *suite) queue(n int) (list []store.Delivery) {
	s.Helper()
	m := s.mail("ana@x.example", 10)
	number := m.accept(s)
	for i := range n {
		list = append(list, s.delivery(m.msg.ID, number, s.now.Add(time.Duration(i)*time.Second)))
	}
	s.update(func(tx store.Tx) error {
		for _, d := range reverse(list) {
			if err := tx.Enqueue(d); err != nil {
				return err
			}
		}
		return nil
	})
	return list
}

func (s *suite) claim(at time.Time, n int) []store.Delivery {
	s.Helper()
	list, err := s.Claim(s.ctx, at, time.Minute, n, nil)
	s.ok(err)
	return list
}

func claimInOrder(s *suite) {
	list := s.queue(5)
	s.same("what is due", s.claim(s.now.Add(time.Second), 10), list[:2])
	s.same("nothing twice", s.claim(s.now.Add(time.Second), 10), []store.Delivery(nil))
	s.same("at most n", s.claim(s.now.Add(time.Hour/100), 2), list[2:4])
	s.same("the rest", s.claim(s.now.Add(time.Hour/100), 2), list[4:])
	s.same("none asked", s.claim(s.now.Add(time.Hour), 0), []store.Delivery(nil))
}

func claimByMany(s *suite) {
	const n = 60
	s.queue(n)
	seen := map[store.ID]bool{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				list, err := s.Claim(s.ctx, s.now.Add(time.Hour), time.Hour, 4, nil)
				if err != nil {
					s.Error(err)
				}
				if len(list) == 0 {
					return
				}
				mu.Lock()
				for _, d := range list {
					if seen[d.ID] {
						s.Errorf("delivery %s was claimed twice", d.ID)
					}
					seen[d.ID] = true
				}
				mu.Unlock()
				for i := range list {
					list[i].State = store.Delivered
				}
				if err := Settle(s.ctx, s, list...); err != nil {
					s.Error(err)
				}
			}
		})
	}
	wg.Wait()
	s.same("claimed", len(seen), n)
}

// Settle settles deliveries as they are given, whatever their rows say by now.
func Settle(ctx context.Context, st store.Store, done ...store.Delivery) error {
	by, ids := map[store.ID]store.Delivery{}, make([]store.ID, len(done))
	for i, d := range done {
		by[d.ID], ids[i] = d, d.ID
	}
	return st.Settle(ctx, func(was store.Delivery) (store.Delivery, error) { return by[was.ID], nil }, ids...)
}

func claimEnds(s *suite) {
	list := s.queue(1)
	s.same("claimed", s.claim(s.now, 1), list)
	s.same("while leased", s.claim(s.now.Add(59*time.Second), 1), []store.Delivery(nil))
	list[0].Interrupted = true
	s.same("afterwards", s.claim(s.now.Add(time.Minute), 1), list)
	list[0].Interrupted = true
	list[0].State = store.Queued
	s.ok(Settle(s.ctx, s, list[0]))
	list[0].Interrupted = false
	s.same("settled, a fresh start", s.claim(s.now.Add(time.Hour), 1), list)
}

func claimRestart(s *suite) {
	list := s.queue(3)
	s.same("claimed", s.claim(s.now.Add(time.Minute), 2), list[:2])
	list[0].State = store.Delivered
	s.ok(Settle(s.ctx, s, list[0]))
	s.restart()
	list[1].Interrupted = true
	s.same("after a restart", s.claim(s.now.Add(time.Minute), 5), list[1:])
}

func settle(s *suite) {
	list := s.queue(3)
	s.claim(s.now.Add(time.Minute), 3)
	later, done, failed := list[0], list[1], list[2]
	later.Due = s.now.Add(time.Hour)
	later.Attempts = []store.Attempt{{At: s.now, NextHop: "mx.example", Result: "deferred", Reply: "451 later", Ambiguous: true}}
	done.State, failed.State = store.Delivered, store.Failed
	done.Recipients[0].State, done.Recipients[0].Reply = store.Delivered, "250 ok"
	s.ok(Settle(s.ctx, s, later, done, failed))
	s.same("not yet", s.claim(s.now.Add(30*time.Minute), 5), []store.Delivery(nil))
	s.same("then", s.claim(s.now.Add(time.Hour), 5), []store.Delivery{later})
	s.view(func(r store.Reader) error {
		got, err := r.Delivery(done.ID)
		s.same("evidence", got, done)
		return err
	})
	s.same("failed", s.deliveries(store.DeliveryFilter{State: store.Failed}), []store.ID{failed.ID})
}

func hold(s *suite) {
	list := s.queue(2)
	held := list[0]
	held.State = store.Held
	s.update(func(tx store.Tx) error { return tx.Enqueue(held) })
	s.same("the other", s.claim(s.now.Add(time.Minute), 5), list[1:])
	// One that is held while somebody tries it does not come back by itself.
	other := list[1]
	other.State = store.Held
	s.update(func(tx store.Tx) error { return tx.Enqueue(other) })
	s.same("held while leased", s.claim(s.now.Add(time.Hour), 5), []store.Delivery(nil))
	held.State = store.Queued
	held.Due = s.now
	s.update(func(tx store.Tx) error { return tx.Enqueue(held) })
	s.same("released", s.claim(s.now.Add(time.Hour), 5), []store.Delivery{held})
}

// claimLanes: of six that are due, one before the other, two pairs wait in lanes.
func claimLanes(s *suite) {
	list := s.queue(6)
	for i, lane := range []string{"a", "a", "b", "b", "", ""} {
		list[i].Lane = lane
	}
	s.update(func(tx store.Tx) error {
		for _, d := range list {
			if err := tx.Enqueue(d); err != nil {
				return err
			}
		}
		return nil
	})
	at := s.now.Add(time.Minute)
	claim := func(what string, n int, room store.Room, want ...store.Delivery) {
		s.Helper()
		got, err := s.Claim(s.ctx, at, time.Hour, n, room)
		s.ok(err)
		s.same(what, got, want)
	}
	due := func(what string, room store.Room, want time.Time) {
		s.Helper()
		got, _, err := s.NextDue(s.ctx, room)
		s.ok(err)
		s.same(what, got, want)
	}
	due("the first of all", nil, list[0].Due)
	due("the first with room", store.Room{"a": 0}, list[2].Due)
	due("the first in no lane", store.Room{"a": 0, "b": 0}, list[4].Due)
	claim("no room in a, and room for one in b", 10, store.Room{"a": 0, "b": 1, "c": 0}, list[2], list[4], list[5])
	due("when the lease ends", store.Room{"a": 0, "b": 0}, at.Add(time.Hour))
	claim("in turn", 2, nil, list[0], list[3])
	list[1].Lane = "b" // it goes elsewhere now
	s.update(func(tx store.Tx) error { return tx.Enqueue(list[1]) })
	claim("not in its new lane", 10, store.Room{"b": 0})
	s.restart()
	for i := range list {
		list[i].Interrupted = i != 1
	}
	claim("after a restart, room or not", 5, store.Room{"a": 0, "b": 0}, list[0], list[2], list[3], list[4], list[5])
	claim("where it waits", 5, store.Room{"a": 0}, list[1])
	list[1].State = store.Held
	s.ok(Settle(s.ctx, s, list[1]))
	list[0].Lane, list[0].Due = "c", at
	s.ok(Settle(s.ctx, s, list[0]))
	list[0].Interrupted = false
	claim("settled into another lane", 5, store.Room{"a": 0, "b": 0}, list[0])
}

func nextDue(s *suite) {
	ask := func() (time.Time, bool) {
		due, ok, err := s.NextDue(s.ctx, nil)
		s.ok(err)
		return due, ok
	}
	if _, ok := ask(); ok {
		s.Error("an empty outbox has something due")
	}
	list := s.queue(2)
	due, _ := ask()
	s.same("the first", due, list[0].Due)
	s.claim(s.now, 1)
	due, _ = ask()
	s.same("the second", due, list[1].Due)
	s.claim(s.now.Add(time.Second), 1)
	due, _ = ask()
	s.same("when the first lease ends", due, s.now.Add(time.Minute))
	list[0].State, list[1].State = store.Delivered, store.Failed
	s.ok(Settle(s.ctx, s, list...))
	if _, ok := ask(); ok {
		s.Error("an outbox at rest has something due")
	}
}

func listDeliveries(s *suite) {
	one, two := s.queue(3), s.queue(2)
	one[1].State = store.Held
	one[2].State = store.Delivered
	one[2].Recipients = []store.Recipient{{Address: "Else@City.example"}}
	s.update(func(tx store.Tx) error {
		for _, d := range one[1:] {
			if err := tx.Enqueue(d); err != nil {
				return err
			}
		}
		return nil
	})
	ids := func(list ...store.Delivery) (ids []store.ID) {
		for _, d := range list {
			ids = append(ids, d.ID)
		}
		return ids
	}
	s.same("all", s.deliveries(store.DeliveryFilter{}), ids(append(one, two...)...))
	s.same("of a case", s.deliveries(store.DeliveryFilter{Case: two[0].Case}), ids(two...))
	s.same("of a message", s.deliveries(store.DeliveryFilter{Message: one[0].Message}), ids(one...))
	s.same("queued", s.deliveries(store.DeliveryFilter{State: store.Queued}), ids(one[0], two[0], two[1]))
	s.same("delivered", s.deliveries(store.DeliveryFilter{State: store.Delivered}), ids(one[2]))
	s.same("held, of a case", s.deliveries(store.DeliveryFilter{State: store.Held, Case: one[0].Case}), ids(one[1]))
	s.same("by recipient", s.deliveries(store.DeliveryFilter{Address: "else@city.example"}), ids(one[2]))
}
