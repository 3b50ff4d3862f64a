package console

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

func (d *desk) installation(t *testing.T) (in store.Installation) {
	t.Helper()
	d.view(t, func(rd store.Reader) (err error) { in, err = rd.Installation(); return err })
	return in
}

// TestRotateKey: the new key signs, old tokens still lead to their case, and no
// secret is told.
func TestRotateKey(t *testing.T) {
	d := newDesk(t)
	old, err := resolver.Sign(d.installation(t), 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	h := d.handler(Operator)
	keys := read[[]Key](t, h, "POST", "/api/v1/keys", "", 201)
	want := []Key{{1, before, false}, {2, later, true}}
	if diff := cmp.Diff(want, keys); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, read[[]Key](t, d.handler(Reader), "GET", "/api/v1/keys", "", 200)); diff != "" {
		t.Error(diff)
	}
	in := d.installation(t)
	secret := in.Keys[1].Secret
	if len(secret) != 32 || bytes.Equal(secret, make([]byte, 32)) || in.ID != id(99) || string(in.Keys[0].Secret) != "k" {
		t.Errorf("%+v", in)
	}
	young, err := resolver.Sign(in, 1, 2)
	if err != nil || young == old {
		t.Error(young, err)
	}
	for _, token := range []string{old, young} {
		if rules := d.decides(t, token); !slices.Contains(rules, "T1") {
			t.Errorf("%s: %v", token, rules)
		}
	}
	if rules := d.decides(t, old[:20]+flip(old[20:21])+old[21:]); slices.Contains(rules, "T1") {
		t.Error("an altered token is taken:", rules)
	}
	if w := ask(h, "GET", "/api/v1/keys", ""); strings.Contains(strings.ToLower(w.Body.String()), "secret") {
		t.Error(w.Body)
	}
	if log := d.logged(t, 0); len(log) != 1 || log[0] != "Installation changed, cli: key 2 signs, the 1 before it verify" {
		t.Error(log)
	}
	read[[]Key](t, h, "POST", "/api/v1/keys", "", 201)
	if again := d.installation(t).Keys; len(again) != 3 || bytes.Equal(again[2].Secret, again[1].Secret) {
		t.Error("two keys have one secret")
	}
}

func flip(c string) string {
	if c == "a" {
		return "b"
	}
	return "a"
}

// decides are the rules that fire for a mail with a token.
func (d *desk) decides(t *testing.T, token string) (rules []string) {
	t.Helper()
	ana := resolver.Address{Address: "ana@x.example"}
	m := resolver.Mail{
		ID: id(70), NewCase: id(71), NewContact: id(72), Received: later, EnvelopeFrom: ana.Address, Recipients: []string{"311+" + token + "@city.example"},
		Author: &ana, From: []resolver.Address{ana}, Subject: "light", MessageID: "z@x.example", Header: none{},
	}
	s := resolver.Settings{Hostname: "gw.city.example", Mailboxes: []resolver.Mailbox{{Address: "311@city.example", Queue: "general"}}}
	d.view(t, func(rd store.Reader) error {
		f, err := rd.Facts(resolver.Ask(m, s))
		if err == nil {
			rules = resolver.Inbound(m, f, s).Decision.Rules
		}
		return err
	})
	return rules
}

// none is a header without fields.
type none struct{}

func (none) Values(string) []string { return nil }

// TestFreeKey: the byte wraps around to ids that are free, and none is given
// twice.
func TestFreeKey(t *testing.T) {
	d := newDesk(t)
	d.update(t, func(tx store.Tx) error {
		in, err := tx.Installation()
		in.Keys = nil
		for n := range 254 {
			in.Keys = append(in.Keys, store.SigningKey{ID: byte(n + 2), Secret: []byte{byte(n)}, CreatedAt: before.Add(time.Duration(n))})
		}
		if err == nil {
			err = tx.PutInstallation(in)
		}
		return err
	})
	h := d.handler(Operator)
	for _, want := range []int{0, 1} {
		if keys := read[[]Key](t, h, "POST", "/api/v1/keys", "", 201); keys[len(keys)-1].ID != want {
			t.Errorf("%+v, want %d", keys[len(keys)-1], want)
		}
	}
	p := read[Problem](t, h, "POST", "/api/v1/keys", "", 409)
	if p.Detail != "all 256 key ids are used" || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	if n := len(d.installation(t).Keys); n != 256 {
		t.Error(n, "keys")
	}
	if log := d.logged(t, 0); len(log) != 2 {
		t.Error(log)
	}
}
