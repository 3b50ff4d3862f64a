package gateway_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-msgauth/dkim"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/mailauth"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
)

// published is a DNS that has key records, by name, and nothing else.
type published map[string]string

func (p published) find(name string) ([]string, error) {
	if record, ok := p[strings.TrimSuffix(name, ".")]; ok {
		return []string{record}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (p published) LookupTXT(_ context.Context, name string) ([]string, error) { return p.find(name) }
func (p published) LookupMX(_ context.Context, name string) ([]*net.MX, error) {
	_, err := p.find("MX " + name)
	return nil, err
}
func (p published) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	_, err := p.find("A " + host)
	return nil, err
}
func (p published) LookupAddr(_ context.Context, addr string) ([]string, error) {
	return p.find("PTR " + addr)
}

// signing makes an RSA and an Ed25519 key for city.example, and what is
// published of them.
func signing(t testing.TB) (*mailauth.Signers, published) {
	t.Helper()
	var keys []mailauth.SigningKey
	records := published{}
	for _, kind := range []string{"rsa", "ed25519"} {
		_, k, err := mailauth.KeyGen(kind, 0, "city.example", kind)
		if err != nil {
			t.Fatal(err)
		}
		keys, records[k.RecordName()] = append(keys, k), strings.Join(k.Record(), "")
	}
	s, err := mailauth.NewSigners(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return s, records
}

// verified has two implementations verify each signature of our domain.
func (p published) verified(t testing.TB, eml string) {
	t.Helper()
	if n := p.byMsgauth(t, eml); n != len(p) {
		t.Errorf("go-msgauth verifies %d signatures of %d\n%.3000q", n, len(p), eml)
	}
	if n := p.byUs(t, eml); n != len(p) {
		t.Errorf("our own checker verifies %d signatures of %d\n%.3000q", n, len(p), eml)
	}
}

// byMsgauth counts the signatures of our domain that another implementation
// verifies.
func (p published) byMsgauth(t testing.TB, eml string) (good int) {
	t.Helper()
	found, err := dkim.VerifyWithOptions(strings.NewReader(eml), &dkim.VerifyOptions{LookupTXT: p.find})
	if err != nil {
		t.Error(err)
	}
	for _, v := range found {
		if v.Domain == "city.example" && v.Err == nil {
			good++
		}
	}
	return good
}

// byUs counts the keys by which alone the message is from city.example.
func (p published) byUs(t testing.TB, eml string) (good int) {
	t.Helper()
	header, body, whole := strings.Cut(eml, "\r\n\r\n")
	if whole {
		header += "\r\n\r\n"
	}
	h := message.Parse([]byte(header))
	for name, record := range p {
		c := mailauth.Checker{Resolver: published{name: record}}
		v := c.Check(t.Context(), mailauth.CheckRequest{FromDomain: "city.example", Header: h, Body: strings.NewReader(body)})
		if v.DKIM == mailauth.Pass && v.AlignedPass {
			good++
		}
	}
	return good
}

// asSent is a message as the relay reads it.
func asSent(t testing.TB, st store.Store, m store.Message) string {
	t.Helper()
	var header []byte
	err := st.View(t.Context(), func(r store.Reader) (err error) { header, _, err = r.Header(m.ID, store.AsSent); return err })
	if err != nil {
		t.Fatal(err)
	}
	rc, err := st.Open(t.Context(), m.ID, store.AsSent)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	raw, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(message.Apply(bytes.NewReader(raw[len(header):]), m.Archived.Transforms))
	if err != nil {
		t.Fatal(err)
	}
	return string(header) + string(body)
}

// Whatever a submission looks like, what leaves is signed and verifies, with the
// transforms of its body, and the record says by which keys.
func TestWhatLeavesIsSigned(t *testing.T) {
	signers, records := signing(t)
	o, out, head := opened(t, func(o *gateway.Options) { o.Signers = signers }, "ann@x.example")
	bare := gateway.BodyFacts{BareLF: true, BareCR: true, NoFinalCRLF: true}
	for name, c := range map[string]struct {
		fields, body string
		facts        gateway.BodyFacts
	}{
		"plain":              {body: "Hello.\r\n"},
		"empty":              {},
		"empty lines":        {body: "\r\n\r\n\r\n"},
		"blanks at its end":  {body: "Hello.  \t\r\n \r\n\t\r\n\r\n\r\n"},
		"dots":               {body: ".\r\n..\r\n...x\r\n.\r\n"},
		"8-bit and NUL":      {body: "gr\xfc\xdflich \x00 \xff\xfe\r\n"},
		"long lines":         {body: strings.Repeat("x", 5000) + "\r\n" + strings.Repeat("y ", 5000) + "\r\n"},
		"large":              {body: strings.Repeat("A line of a large message, of which there are many.\r\n", 20_000)},
		"bare line ends":     {body: "a\nb\rc\r\n\n\nd\r\r\n\ne", facts: bare},
		"no final line end":  {body: "Hello.", facts: gateway.BodyFacts{NoFinalCRLF: true}},
		"folded and spaced":  {fields: "X-A:   b\r\n\t c\r\nDate:  Mon,\r\n 23 Nov   2026 09:30:00 +0100  \r\nMIME-Version : 1.0\r\n", body: "x\r\n"},
		"8-bit header":       {fields: "X-A: gr\xc3\xbcn\r\nSender: J\xf6rg <j@city.example>\r\n", body: "x\r\n"},
		"repeated fields":    {fields: "Sender: a@city.example\r\nSender: b@city.example\r\nList-Id: <a>\r\nList-Id: <b>\r\n", body: "x\r\n"},
		"signed by somebody": {fields: "DKIM-Signature: v=1; a=rsa-sha256; d=crm.example; s=x; h=from:date; bh=x; b=y\r\n", body: "x\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			eml := head + "To: ann@x.example, 311@city.example\r\nBcc: blind@x.example\r\nMessage-ID: <" + strings.ReplaceAll(name, " ", ".") + "@desk.example>\r\n" + c.fields + "\r\n" + c.body
			env := &gateway.Envelope{Listener: "test", Role: gateway.RoleOutbound, Protocol: "ESMTP", From: path(t, "311@city.example"),
				Recipients: []gateway.Recipient{{Path: path(t, "ann@x.example")}, {Path: path(t, "blind@x.example")}}, Body: c.facts}
			env.Body.Size = int64(len(eml))
			sink, err := out.Spool(t.Context(), env)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(sink, eml)
			r, err := out.Accept(t.Context(), env, sink)
			if err != nil {
				t.Fatal(err)
			}
			m := stored(t, o, r)
			sent := asSent(t, o.Store, m)
			records.verified(t, sent)
			if !strings.HasPrefix(sent, "DKIM-Signature: v=1; a=rsa-sha256;") || int64(len(sent)) != m.Archived.SentSize {
				t.Errorf("%d octets, recorded as %d: %.200q", len(sent), m.Archived.SentSize, sent)
			}
			if said := strings.Join(m.Decision.Reasons, "\n"); !strings.Contains(said, "O13: signed by city.example: rsa (rsa, 2048 bits) and ed25519 (ed25519)") {
				t.Errorf("%q", said)
			}
			if strings.Contains(c.fields, "crm.example") != strings.Contains(sent, "d=crm.example") {
				t.Errorf("somebody else's signature over what stays: %q\n%.1500s", m.Decision.Reasons, sent)
			}
		})
	}
	sound(t, o)
}

// The domain of From, as it leaves, decides who signs; observe changes nothing.
func TestWhoseMailIsSigned(t *testing.T) {
	signers, records := signing(t)
	for name, c := range map[string]struct {
		from, sender string
		observe      bool
		says         string // empty: signed
	}{
		"a mailbox":            {from: "311@city.example"},
		"its plus-address":     {from: "311+x@City.Example"},
		"another domain":       {from: "desk@town.example", says: "O13: not signed: dkim has no key for town.example"},
		"a subdomain":          {from: "desk@gw.city.example", says: "O13: not signed: dkim has no key for gw.city.example"},
		"rewritten to ours":    {from: "desk@town.example", sender: "mailbox"},
		"what is only watched": {from: "311@city.example", observe: true, says: "mode: observe"},
	} {
		o, _, head := opened(t, func(o *gateway.Options) { o.Signers, o.Settings.Sender = signers, c.sender }, "ann@x.example")
		out := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as", SendAs: []string{c.from}, Observe: c.observe})
		head = strings.Replace(head, "311@city.example", c.from, 1)
		k := keptOf(t, o, submit(t, out, head+"To: ann@x.example\r\n\r\nhello\r\n", "ann@x.example"))
		signed := strings.Contains(k.sent, "DKIM-Signature")
		if signed != (c.says == "") || c.says != "" && !k.says(c.says) {
			t.Errorf("%s: signed: %v, %q", name, signed, k.message.Decision.Reasons)
		}
		if signed {
			records.verified(t, k.sent)
		}
	}
}

// What acknowledges a case is signed too.
func TestAcknowledgementIsSigned(t *testing.T) {
	signers, records := signing(t)
	o := answering(t)
	o.Signers = signers
	o.Ack.Text = "Thank you: {number}.\n\n.\nGr\u00fc\u00dfe \n\n"
	if _, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ann@x.example", "From: ann@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\nout\r\n", "311@city.example"); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, d := range deliveriesOf(t, o.Store) {
		if m := messageOf(t, o.Store, d.Message); d.Role == string(gateway.RoleOutbound) {
			n++
			records.verified(t, asSent(t, o.Store, m))
			if !strings.Contains(strings.Join(m.Decision.Reasons, "\n"), "O13: signed by city.example") {
				t.Errorf("%q", m.Decision.Reasons)
			}
		}
	}
	if n != 1 {
		t.Errorf("%d acknowledgements", n)
	}
	sound(t, o)
}

// shifting is a store whose facts change before a transaction begins, a number
// of times; inside tells whether one runs.
type shifting struct {
	store.Store
	times  atomic.Int32
	shift  func()
	inside atomic.Bool
}

func (s *shifting) Update(ctx context.Context, fn func(store.Tx) error) error {
	if s.times.Add(-1) >= 0 {
		s.shift()
	}
	return s.Store.Update(ctx, func(tx store.Tx) error {
		s.inside.Store(true)
		defer s.inside.Store(false)
		return fn(tx)
	})
}

// Signing takes longer than all else, and everybody waits for a transaction: so
// where the facts change it is done anew outside; but not for ever.
func TestSigningWaitsForNobody(t *testing.T) {
	for changes, want := range map[int32]struct{ outside, inside int }{0: {1, 0}, 1: {2, 0}, 2: {3, 0}, 3: {3, 1}, 9: {3, 1}} {
		signers, records := signing(t)
		s := &shifting{}
		o, _, head := opened(t, func(o *gateway.Options) { o.Signers, s.Store = signers, o.Store }, "ann@x.example")
		plain, n := o.Store, 0
		s.shift = func() {
			n++
			eml := fmt.Sprintf("From: ann@x.example\r\nTo: 311@city.example\r\nIn-Reply-To: <first@x.example>\r\nSubject: %d\r\n\r\nmore\r\n", n)
			o := o
			o.Store = plain
			if _, err := hand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ann@x.example", eml, "311@city.example"); err != nil {
				t.Error(err)
			}
		}
		var outside, inside int
		signers.For("city.example").Now = func() time.Time {
			if s.inside.Load() {
				inside++
			} else {
				outside++
			}
			return time.Now()
		}
		o.Store = s
		s.times.Store(changes)
		k := keptOf(t, o, submit(t, gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as"}), head+"To: ann@x.example\r\n\r\nhello\r\n", "ann@x.example"))
		// One look at the clock for each of two keys.
		if outside != 2*want.outside || inside != 2*want.inside {
			t.Errorf("facts that change %d times: signed %d times outside, %d inside a transaction; want %+v", changes, outside/2, inside/2, want)
		}
		records.verified(t, k.sent)
		if !strings.Contains(k.sent, "X-Case-Ref") || k.kase.Ordinal != uint32(2+min(changes, 3)) {
			t.Errorf("%d activities\n%s", k.kase.Ordinal, k.sent)
		}
		sound(t, o)
	}
}

// What waited for the directory is acknowledged when that answers, and signed
// outside the transaction too.
func TestRetrySignsOutside(t *testing.T) {
	signers, records := signing(t)
	o, s := answering(t), &shifting{}
	s.Store, o.Store, o.Signers = o.Store, s, signers
	out := true
	o.Logger = slog.New(slog.DiscardHandler)
	o.Directory = func(context.Context, time.Time, []string) error {
		if out {
			return errors.New("no answer")
		}
		return nil
	}
	m := stored(t, o, mustHand(t, gateway.NewInbound(o, gateway.Intake{}), gateway.RoleInbound, "ann@x.example",
		"From: ann@x.example\r\nTo: 311@city.example\r\nSubject: light\r\n\r\nout\r\n", "311@city.example"))
	if m.Exception != gateway.PendingDirectory {
		t.Fatalf("%+v", m)
	}
	out = false
	var outside, inside int
	signers.For("city.example").Now = func() time.Time {
		if s.inside.Load() {
			inside++
		} else {
			outside++
		}
		return time.Now()
	}
	if m, err := gateway.Retry(t.Context(), o, gateway.Intake{}, m.ID); err != nil || m.Case == 0 {
		t.Fatal(m.Exception, err)
	}
	if inside != 0 || outside != 2 {
		t.Errorf("two keys signed %d times outside, %d inside the transaction", outside, inside)
	}
	for _, d := range deliveriesOf(t, o.Store) {
		if d.Role == string(gateway.RoleOutbound) {
			records.verified(t, asSent(t, o.Store, messageOf(t, o.Store, d.Message)))
			return
		}
	}
	t.Error("no acknowledgement")
}

// torn is a store whose bodies cannot be read again.
type torn struct{ store.Store }

type tornBody struct{ store.Body }

var errTorn = errors.New("the disk is gone")

func (torn) bad() error { return fmt.Errorf("%w: %w", store.ErrUnavailable, errTorn) }
func (s torn) Stage(ctx context.Context) (store.Body, error) {
	b, err := s.Store.Stage(ctx)
	return tornBody{b}, err
}
func (b tornBody) WriteTo(io.Writer) (int64, error) { return 0, torn{}.bad() }

// A body that cannot be hashed is the store's trouble: nothing leaves unsigned.
func TestUnreadableBodyIsNotSentUnsigned(t *testing.T) {
	signers, _ := signing(t)
	o, _, head := opened(t, func(o *gateway.Options) { o.Signers = signers }, "ann@x.example")
	o.Store = torn{o.Store}
	_, err := hand(t, gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as"}), gateway.RoleOutbound, "311@city.example", head+"To: ann@x.example\r\n\r\nhello\r\n", "ann@x.example")
	if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, errTorn) {
		t.Errorf("%v", err)
	}
}

// readOtherwise are the mails of the corpus with a line that is no field to us
// and a second From to go-msgauth: there our signature must not hold, as it covers
// one From and no more.
var readOtherwise = map[string]bool{
	"rspamd/phish_sender2.eml":                true, // the colon is on the next line
	"rspamd/phish_sender4.eml":                true,
	"enmime/low-quality/bad-header-start.raw": true, // a blank before it, on the first line
}

// Every mail of the corpus, sent by the desk, leaves with signatures that
// verify.
func TestCorpusIsSigned(t *testing.T) {
	t.Parallel()
	signers, records := signing(t)
	o := desk(t, func(o *gateway.Options) { o.Signers = signers })
	out := gateway.NewOutbound(o, gateway.Submitters{Setting: "send_as"})
	mails, refused, signed := allMails(t), map[string]string{}, 0
	for name, eml := range mails {
		r, err := hand(t, out, gateway.RoleOutbound, "311@city.example", fromUs(name, eml), "ann@x.example")
		if err != nil {
			refused[name] = err.Error()
			continue
		}
		sent := asSent(t, o.Store, stored(t, o, r))
		want := len(records)
		if readOtherwise[name] {
			want = 0
		}
		byMsgauth, byUs := records.byMsgauth(t, sent), records.byUs(t, sent)
		if byMsgauth != want || byUs != len(records) {
			t.Errorf("%s: go-msgauth verifies %d signatures of %d, our own checker %d", name, byMsgauth, want, byUs)
			continue
		}
		signed++
	}
	t.Logf("%d mails, %d signed twice and verified twice; refused: %v", len(mails), signed, refused)
	if signed < 1000 || len(refused)*100 > len(mails) {
		t.Errorf("%d of %d are signed", signed, len(mails))
	}
}

// corpusMail tells the mails of the corpus from what lies beside them.
var corpusMail = regexp.MustCompile(`\.(eml|msg|raw)$|/dkim/email\.\d+$|^cpython/msg_\w+\.txt$|^reply-parser/.*\.txt$`)

// allMails are those of the whole corpus by their names.
func allMails(t *testing.T) map[string]string {
	t.Helper()
	mails := map[string]string{}
	err := filepath.WalkDir(corpusFolder, func(path string, d fs.DirEntry, err error) error {
		name, _ := filepath.Rel(corpusFolder, path)
		if err != nil || d.IsDir() || !corpusMail.MatchString(filepath.ToSlash(name)) {
			return err
		}
		text, err := os.ReadFile(path)
		text = bytes.ReplaceAll(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")), []byte("\r"), []byte("\n"))
		mails[filepath.ToSlash(name)] = strings.ReplaceAll(strings.TrimSuffix(string(text), "\n")+"\n", "\n", "\r\n")
		return err
	})
	if err != nil {
		noCorpus(t, err)
	}
	return mails
}

// fromUs puts our mailbox in From, and takes what makes two mails one.
func fromUs(name, eml string) string {
	block, body, whole := strings.Cut(eml, "\r\n\r\n")
	if whole {
		block += "\r\n\r\n"
	}
	h := message.Parse([]byte(block))
	e := message.NewEditor(h)
	for _, f := range h.Fields() {
		switch strings.ToLower(f.Name) {
		case "from", "message-id":
			e.Remove(f)
		}
	}
	e.Prepend("Message-ID", fmt.Sprintf("<%x@desk.example>", sha256.Sum256([]byte(name))))
	e.Prepend("From", "City 311 <311@city.example>")
	return string(e.Bytes()) + body
}
