package gateway_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
)

// Whatever the fields of a submission look like, what is shown is what was
// decided: every To and Cc that is sent can be read, holds the parties of the
// record and nobody else, and no address that a rule took out.
func TestSentListsAreThoseDecided(t *testing.T) {
	o, out, head := opened(t, nil, "Ann <ann@x.example>")
	people := []store.Contact{
		{ID: store.NewID(), Kind: store.Registered, EmailAddresses: []store.EmailAddress{{Address: "ann@x.example"}, {Address: "linked@work.example"}}},
		{ID: store.NewID(), Kind: store.Registered, Name: "Cleo", EmailAddresses: []store.EmailAddress{{Address: "cleo@x.example"}}},
		{ID: store.NewID(), Kind: store.Registered, EmailAddresses: []store.EmailAddress{{Address: "two@x.example"}}},
		{ID: store.NewID(), Kind: store.Guest, EmailAddresses: []store.EmailAddress{{Address: "two@x.example"}}},
	}
	for _, c := range people {
		if err := o.Store.Update(context.Background(), func(tx store.Tx) error { return tx.PutContact(c) }); err != nil {
			t.Fatal(err)
		}
	}
	addresses := []string{"ann@x.example", "linked@work.example", "cleo@x.example", "two@x.example", "new@x.example", "311@city.example", "311+x@city.example", "ANN@X.example", "x@bücher.example"}
	forms := []string{"%s", "<%s>", "Some One <%s>", "\"Doe, John\" <%s>", "Doe, John <%s>", "=?utf-8?q?J=C3=B6?= <%s>", "%s (a comment)", "<%s", "Team: %s;", "Team: %s, <%[1]s>;", "%s\r\n ", "\r\n\t<%s>"}
	junk := []string{"", " ", "nobody", "undisclosed-recipients:;", "a@b c@d", "(only a comment)", "\"open", "<>", "@", ":", ";", "x <a@b> <c@d>"}
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		entry := rapid.Custom(func(t *rapid.T) string {
			if rapid.IntRange(0, 3).Draw(t, "kind") == 0 {
				return rapid.SampledFrom(junk).Draw(t, "junk")
			}
			return fmt.Sprintf(rapid.SampledFrom(forms).Draw(t, "form"), rapid.SampledFrom(addresses).Draw(t, "address"))
		})
		fields := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string {
			name := rapid.SampledFrom([]string{"To", "Cc", "to", "CC", "Bcc", "Resent-To", "Mail-Followup-To"}).Draw(t, "name")
			separator := rapid.SampledFrom([]string{", ", ",\r\n ", ";", ",,"}).Draw(t, "separator")
			return name + ": " + strings.Join(rapid.SliceOfN(entry, 0, 5).Draw(t, "entries"), separator) + "\r\n"
		}), 0, 4).Draw(rt, "fields")
		envelope := rapid.SliceOfNDistinct(rapid.SampledFrom(addresses[:6]), 1, 4, rapid.ID[string]).Draw(rt, "envelope")
		n++
		eml := head + strings.Join(fields, "") + fmt.Sprintf("\r\n%d\r\n", n)
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", eml, envelope...)
		if err != nil {
			if strings.Contains(err.Error(), "451") || !strings.Contains(err.Error(), "no recipient is left") {
				rt.Fatal(err)
			}
			return
		}
		sent, d := sentOf(t, o, r)
		checkLists(rt, o, r, sent)
		for _, to := range rcpts(d) {
			if !slices.Contains(envelope, to) && store.Key(to) != "ann@x.example" {
				rt.Fatalf("%s receives and was not given", to)
			}
		}
	})
}

// checkLists compares the lists of a sent message with its parties.
func checkLists(rt *rapid.T, o gateway.Options, r gateway.Receipt, sent string) {
	id, _ := store.ParseID(r.ID)
	var m store.Message
	o.Store.View(context.Background(), func(rd store.Reader) (err error) { m, err = rd.Message(id); return err })
	block, _, _ := strings.Cut(sent, "\r\n\r\n")
	h := message.Parse([]byte(block + "\r\n"))
	for name, role := range map[string]store.Role{"To": store.RoleTo, "Cc": store.RoleCC} {
		var want, got []string
		for _, p := range m.Parties {
			if p.Role == role {
				want = append(want, store.Key(p.AddressUsed))
			}
		}
		for _, f := range h.Named(name) {
			list, unread := message.ParseListAll(f.Value())
			if len(unread) > 0 {
				rt.Fatalf("%s cannot be read: %q", name, f.Raw())
			}
			for _, b := range list {
				got = append(got, store.Key(b.Address))
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			rt.Fatalf("%s shows %q, decided %q\n%s", name, got, want, sent)
		}
	}
	for _, name := range []string{"Bcc", "Resent-To", "Mail-Followup-To"} {
		if len(h.Named(name)) > 0 {
			rt.Fatalf("%s is sent", name)
		}
	}
	if strings.Contains(block, "linked@work") || strings.Contains(block, "311+x@") {
		rt.Fatalf("a removed address is sent: %s", block)
	}
}
