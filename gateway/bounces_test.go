package gateway_test

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/message"
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
			t.Skipf("the mail corpus is not beside this checkout: %v", err)
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

// answering is a desk that acknowledges whatever it may.
func answering(t *testing.T) gateway.Options {
	return desk(t, func(o *gateway.Options) {
		o.Settings.Ack, o.Settings.AckPerHour, o.Settings.AckPerDay = true, 5, 20
		o.Ack = gateway.Acknowledgement{Subject: "Case {number}", Text: "We have it."}
	})
}

// No bounce, receipt or complaint of the corpus opens a case or is answered:
// not with the null reverse-path that it should have, and not when a server
// sends it under the address that it shows.
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
			classes := map[string]int{}
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
				if m.Case != 0 {
					t.Errorf("%s opens a case as %s: %s\n%s", name, m.Class, strings.Join(m.Decision.Reasons, "; "), shortHeader(eml))
				}
			}
			t.Logf("%d mails: %v", len(mails), classes)
			nothingSent(t, o.Store)
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

// nothingSent: no message of ours, nothing on its way to anybody.
func nothingSent(t *testing.T, st store.Store) {
	t.Helper()
	err := st.View(context.Background(), func(r store.Reader) error {
		deliveries, _, err := r.Deliveries(store.DeliveryFilter{}, store.Page{})
		if err != nil || len(deliveries) > 0 {
			t.Errorf("deliveries %+v %v", deliveries, err)
		}
		cases, _, err := r.Cases(store.CaseFilter{}, store.Page{})
		if err != nil || len(cases) > 0 {
			t.Errorf("%d cases %v", len(cases), err)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
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
