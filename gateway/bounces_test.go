package gateway_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

const corpusFolder = "../../shared/corpus"

// corpusMails returns the mails of some folders of the corpus by their names,
// with the line ends that SMTP has.
func corpusMails(t *testing.T, folders ...string) map[string]string {
	t.Helper()
	mails := map[string]string{}
	for _, folder := range folders {
		root := filepath.Join(corpusFolder, folder)
		if _, err := os.Stat(root); err != nil {
			noCorpus(t, err)
		}
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(name) != ".eml" {
				return err
			}
			text, err := os.ReadFile(name)
			text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
			short, _ := filepath.Rel(corpusFolder, name)
			mails[short] = strings.ReplaceAll(string(text), "\n", "\r\n")
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return mails
}

func noCorpus(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip("the mail corpus is not beside this checkout: ", err)
}

// answering is a desk that acknowledges whatever it may.
func answering(t *testing.T) gateway.Options {
	return desk(t, func(o *gateway.Options) {
		o.Settings.Ack, o.Settings.AckPerHour, o.Settings.AckPerDay = true, 5, 20
		o.Ack = gateway.Acknowledgement{Subject: "Case {number}", Text: "We have it."}
	})
}

// unmarked are the mails of the corpus that nothing in their header tells from a
// person's, once they do not have the null reverse-path. Only two of them look
// as if somebody reads the answers.
var unmarked = map[string]struct {
	why      string
	answered bool
}{
	"sisimai/lhost-sendmail-14.eml":  {"a person forwards a bounce", true},
	"sisimai/lhost-fml-02.eml":       {"a list manager turns a mail down in its own words", true},
	"sisimai/lhost-amazonses-10.eml": {"a notification of SNS: the bounce is JSON in the body", false},
	"sisimai/lhost-amazonses-12.eml": {"a notification of SNS: the report is JSON in the body", false},
	"sisimai/lhost-kddi-02.eml":      {"From no-reply, Subject: Mail", false},
	"sisimai/lhost-verizon-02.eml":   {"From post_master, Subject: Re:", false},
}

// No bounce, receipt or complaint of the corpus opens a case or is answered:
// not with the null reverse-path that it should have, and not when a server
// sends it under the address that it shows, but for the few that say nothing.
func TestBouncesOpenNothing(t *testing.T) {
	for _, c := range []struct {
		name string
		from func(eml string) string
	}{
		{"null reverse-path", func(string) string { return "<>" }},
		{"its own address", ownAddress},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := answering(t)
			h := gateway.NewInbound(o, gateway.Intake{})
			classes, opened := map[string]int{}, map[uint64]string{}
			mails := corpusMails(t, "sisimai", "flanker/bounce", "flanker/complaints")
			for name, eml := range mails {
				r, err := hand(t, h, gateway.RoleInbound, c.from(eml), eml, "311@city.example")
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				id, err := store.ParseID(r.ID)
				if err != nil {
					t.Fatal(err)
				}
				m := messageOf(t, o.Store, id)
				classes[m.Class]++
				if m.Case == 0 {
					continue
				}
				opened[m.Case] = name
				if _, known := unmarked[name]; !known || c.from(eml) == "<>" {
					t.Errorf("%s opens a case as %s: %s\n%s", name, m.Class, strings.Join(m.Decision.Reasons, "; "), shortHeader(eml))
				}
			}
			t.Logf("%d mails: %v; %d open a case", len(mails), classes, len(opened))
			for _, d := range deliveriesOf(t, o.Store) {
				if name := opened[d.Case]; d.Role != string(gateway.RoleInbound) && !unmarked[name].answered || name == "" {
					t.Errorf("%s: %+v", name, d)
				}
			}
		})
	}
}

// ownAddress is the envelope sender that a mail shows, if it shows one.
func ownAddress(eml string) string {
	h := message.Parse([]byte(eml[:strings.Index(eml+"\r\n\r\n", "\r\n\r\n")]))
	for _, field := range []string{"Return-Path", "From"} {
		if list := message.ParseList(h.Get(field)); len(list) == 1 {
			if p, err := gateway.ParsePath(list[0].Address); err == nil {
				return p.String()
			}
		}
	}
	return "<>"
}

func messageOf(t *testing.T, st store.Store, id store.ID) (m store.Message) {
	t.Helper()
	err := st.View(context.Background(), func(r store.Reader) (err error) {
		m, err = r.Message(id)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func deliveriesOf(t *testing.T, st store.Store) (list []store.Delivery) {
	t.Helper()
	err := st.View(context.Background(), func(r store.Reader) (err error) {
		list, _, err = r.Deliveries(store.DeliveryFilter{}, store.Page{Limit: 1000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func shortHeader(eml string) string {
	header, _, _ := strings.Cut(eml, "\r\n\r\n")
	var b strings.Builder
	for line := range strings.Lines(header) {
		if !strings.HasPrefix(line, "Received:") && b.Len() < 1500 {
			b.WriteString("    " + line)
		}
	}
	return b.String()
}

// The traps of the corpus: whatever From says, only the contact who really has
// that one address is taken for the sender, and mostly nobody is.
func TestFromTrapsYieldNoWrongContact(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(corpusFolder, "own", "from-identity-cases.json"))
	if err != nil {
		noCorpus(t, err)
	}
	var traps struct {
		Cases []struct {
			From string   `json:"from_header"`
			Safe []string `json:"safe_contact"`
			Why  string
		}
	}
	if err := json.Unmarshal(text, &traps); err != nil || len(traps.Cases) == 0 {
		t.Fatal(len(traps.Cases), err)
	}
	o := answering(t)
	victims := []string{"a@victim.test", "b@victim.test", "a@attacker.test", "b@attacker.test", "c@attacker.test", "q@attacker.test", "a@x.test", "b@y.test", "x@y.test", "a..b@victim.test", "a@apple.com", "a@[127.0.0.1]", "ab@victim.test"}
	for _, c := range traps.Cases {
		for _, a := range c.Safe {
			victims = append(victims, store.Key(a))
		}
	}
	slices.Sort(victims)
	have := map[store.ID]string{}
	err = o.Store.Update(context.Background(), func(tx store.Tx) error {
		for _, a := range slices.Compact(victims) {
			c := store.Contact{ID: store.NewID(), Kind: store.Registered, EmailAddresses: []store.EmailAddress{{Address: a}}}
			have[c.ID] = a
			if err := tx.PutContact(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h := gateway.NewInbound(o, gateway.Intake{})
	for i, c := range traps.Cases {
		eml := fmt.Sprintf("From: %s\r\nTo: 311@city.example\r\nSubject: trap %d\r\n\r\nx\r\n", c.From, i)
		r, err := hand(t, h, gateway.RoleInbound, "someone@attacker.test", eml, "311@city.example")
		if err != nil {
			t.Errorf("%q (%s): %v", c.From, c.Why, err)
			continue
		}
		id, _ := store.ParseID(r.ID)
		m := messageOf(t, o.Store, id)
		var got []string
		if customer, registered := have[customerOf(t, o.Store, m.Case)]; registered {
			got = append(got, customer)
		}
		if !slices.Equal(got, c.Safe) || (m.Identity == string(resolver.Registered)) != (len(c.Safe) == 1) {
			t.Errorf("%q (%s): customer %q as %s, safe is %q", c.From, c.Why, got, m.Identity, c.Safe)
		}
		for _, p := range m.Parties {
			if a, registered := have[p.Party.ID]; p.Role == store.RoleSender && registered && !slices.Contains(c.Safe, a) {
				t.Errorf("%q (%s): the sender is taken for %s, safe is %q", c.From, c.Why, a, c.Safe)
			}
		}
	}
}

func customerOf(t *testing.T, st store.Store, number uint64) (id store.ID) {
	t.Helper()
	err := st.View(context.Background(), func(r store.Reader) error {
		c, err := r.Case(number)
		id = c.Customer
		return err
	})
	if err != nil {
		t.Fatal(number, err)
	}
	return id
}
