package resolver

import (
	"slices"
	"time"

	"github.com/casegate/casegate/store"
)

// square is one cell of the inbound table, in the words of the rules file. n
// varies what the words leave open: which carrier, which sign of a class.
type square struct {
	tracking, state, sender, class string
	unparsable                     bool
	repeats                        string // "", the case "same" as before, or "another" case
	form                           string // of an agent's mail
	out, flood, strict, orphans    bool
	enclosed                       bool // an agent forwards it
	n                              uint32
}

var agentForms = []string{"forwards", "one outsider", "no outsider", "two outsiders"}

// People and cases of every square.
var (
	boardBen   = contact(1, store.Guest, "Ben", "ben@x.example")
	boardCleo  = contact(3, store.Registered, "Cleo", "cleo@x.example")
	boardTwo   = []store.Contact{contact(4, store.Registered, "Dora", "two@x.example"), contact(5, store.Registered, "Emil", "two@x.example")}
	boardFam   = []store.Contact{contact(6, store.Guest, "Ana", "fam@x.example"), contact(7, store.Guest, "Abe", "fam@x.example")}
	boardAgent = store.Agent{ID: id(9), EmailAddresses: []string{"agent@city.example"}}
	boardSent  = store.Message{
		ID: id(60), Case: 1042, Ordinal: 1, Direction: store.Outgoing, Envelope: store.Envelope{From: "app@city.example"},
		Parties: []store.Party{{Role: store.RoleTo, AddressUsed: "ben@x.example"}},
	}
	boardHolders = map[string]store.Holders{
		"ben@x.example":      {Contacts: []store.Contact{boardBen}},
		"cleo@x.example":     {Contacts: []store.Contact{boardCleo}},
		"two@x.example":      {Contacts: boardTwo},
		"fam@x.example":      {Contacts: boardFam},
		"agent@city.example": {Agents: []store.Agent{boardAgent}},
	}
	boardContacts = map[store.ID]store.Contact{boardCleo.ID: boardCleo}
	boardKeys     = installation(1, 2)
	boardToken    = boardSign(boardKeys, 1042, 1)
	boardLost     = boardSign(boardKeys, 999, 1)
	boardMerged   = boardSign(boardKeys, 1043, 1)
	boardAlien    = func() string { in := installation(1, 2); in.ID[0]++; return boardSign(in, 1042, 1) }()
	boardUnknown  = boardSign(installation(7), 1042, 1)
	boardGuess    = boardToken[:35] + string("aq"[boardToken[35]&1])
)

// The case led to is 1042; merged cases lead there from 1043.
const boardNow = 1042

func boardSign(in store.Installation, number uint64, ordinal uint32) string {
	text, err := Sign(in, number, ordinal)
	if err != nil {
		panic(err)
	}
	return text
}

// of picks one of several ways to say the same thing. Each question has bits of
// its own, so that all combinations come up in time.
func of[T any](n uint32, question int, ways ...T) T {
	return ways[int(n>>(3*question))%len(ways)]
}

// board is the world of a square, and the settings.
func (q square) board(m Mail) (world, Settings) {
	w := world{
		installation: boardKeys, holders: boardHolders, contacts: boardContacts,
		answered: map[store.CaseOrdinal]store.Message{{Case: 1042, Ordinal: 1}: boardSent},
		cases:    map[uint64]store.CaseFacts{7: {Case: store.Case{Number: 7, State: store.Active}}},
	}
	q.putCase(&w, m)
	if q.tracking == "T2" || q.tracking == "T3" {
		w.messageIDs = map[string][]store.MessageRef{"seen@x.example": {{ID: id(61), Case: q.entry(), Own: q.n%2 == 0, ReceivedAt: noon.Add(-time.Hour)}}}
	}
	if q.repeats != "" {
		ref := store.MessageRef{ID: id(50), Case: 7, Own: true, Direction: store.Incoming, ContentHash: "h", ReceivedAt: noon.Add(-time.Hour)}
		if q.repeats == "same" && q.onCase() {
			ref.Case = q.entry()
		}
		if w.messageIDs == nil {
			w.messageIDs = map[string][]store.MessageRef{}
		}
		w.messageIDs[m.MessageID] = append(w.messageIDs[m.MessageID], ref)
	}
	if m.Embedded != nil {
		m = *m.Embedded
	}
	if q.flood {
		opened := of(q.n, 0, slices.Repeat([]time.Time{noon.Add(-time.Minute)}, 3), slices.Repeat([]time.Time{noon.Add(-5 * time.Hour)}, 5))
		w.tallies = map[store.TallyKey][]time.Time{{Kind: store.TallyOpened, Address: m.opener()}: opened}
	}
	return w, Settings{
		Hostname: "gw.city.example", DedupeWindow: 5 * 24 * time.Hour, SubmitWindow: 24 * time.Hour,
		ReopenWindow: 30 * 24 * time.Hour, ReopenPerDay: 3, FloodHour: 3, FloodDay: 5,
		Strict: q.strict, OrphanCase: q.orphans, Ack: true, AckPerHour: 5, AckPerDay: 20,
		Mailboxes: []Mailbox{{Address: "311@city.example", Queue: "general"}},
	}
}

// entry is the number of the case that evidence names.
func (q square) entry() uint64 {
	if q.state == "merged" || q.state == "merged in a circle" {
		return 1043
	}
	return boardNow
}

func (q square) putCase(w *world, m Mail) {
	c := store.Case{ID: id(200), Number: boardNow, State: store.Active, Customer: boardBen.ID, Mailbox: "311@city.example", Ordinal: 4}
	switch q.state {
	case "none":
		return
	case "Resolved in time":
		c.State, c.ResolvedAt, c.ReopenedAt = store.Resolved, noon.Add(-29*24*time.Hour), []time.Time{noon.Add(-25 * time.Hour), noon.Add(-time.Hour)}
	case "Resolved too late":
		c.State, c.ResolvedAt = store.Resolved, noon.Add(-31*24*time.Hour)
	case "Resolved too often":
		c.State, c.ResolvedAt, c.ReopenedAt = store.Resolved, noon.Add(-time.Hour), slices.Repeat([]time.Time{noon.Add(-2 * time.Hour)}, 3)
	case "Cancelled":
		c.State = store.Cancelled
	case "merged":
		w.cases[1043] = store.CaseFacts{Case: store.Case{Number: 1043, State: store.Cancelled, MergedInto: 1044}}
		w.cases[1044] = store.CaseFacts{Case: store.Case{Number: 1044, State: store.Cancelled, MergedInto: boardNow}}
	case "merged in a circle":
		w.cases[1044] = store.CaseFacts{Case: store.Case{Number: 1044, State: store.Cancelled, MergedInto: 1043}}
		c.Number, c.State, c.MergedInto = 1043, store.Cancelled, 1044
	}
	used := map[string]store.Usage{"ben@x.example": {First: noon, Last: noon}}
	if m.Author != nil && q.takesPart() {
		used[m.Author.Key()] = store.Usage{First: noon, Last: noon, Sender: true}
	}
	w.cases[c.Number] = store.CaseFacts{Case: c, Customer: boardBen, Used: used}
}

// takesPart: the sender's address was used on the case. Who is forged, or has
// no single address, never counts as taking part.
func (q square) takesPart() bool {
	return !q.enclosed && (q.tracking == "T2" || q.tracking[:2] == "T1" && q.n%3 == 0)
}

func (q square) onCase() bool { return q.outcome() == "T1" || q.outcome() == "T2" }

// outcome is the tracking outcome that rules §2 ask for.
func (q square) outcome() string {
	nobody := q.sender == "forged domain" || q.sender == "forged agent" || q.sender == "several From"
	if q.tracking == "T2" && nobody {
		return "T3"
	}
	return q.tracking[:2]
}

// kind is the class that rules §3 ask for: a loop is told first.
func (q square) kind() string {
	if q.unparsable && q.class != "loop" {
		return "unparsable"
	}
	return q.class
}

// mail is the message of a square.
func (q square) mail() Mail {
	m := Mail{
		ID: id(100), NewCase: id(101), NewContact: id(102), Received: noon,
		Recipients: []string{"311@city.example"}, To: []Address{{Address: "311@city.example"}}, Header: multi{},
		Subject: "street light", MessageID: "new@x.example", ContentHash: "h",
	}
	if q.enclosed {
		m.MessageID = "inner@x.example"
	}
	if q.unparsable {
		m.Unparsable = "its header is too long"
	}
	if q.out {
		m.DirectoryOut = "the directory does not answer"
	}
	q.setSender(&m)
	q.setClass(&m)
	if q.enclosed {
		m.Notification = nil
	}
	q.setTracking(&m)
	q.setForm(&m)
	return m
}

func (q square) setSender(m *Mail) {
	h := m.Header.(multi)
	address := map[string]string{
		"own": of(q.n, 1, "311@city.example", "311+tag@City.Example"), "agent": "agent@city.example", "forged agent": "agent@city.example",
		"asserted guest": of(q.n, 1, "form@x.example", "fam@x.example"), "asserted contact": "portal@x.example",
		"forged domain":       of(q.n, 1, "cleo@x.example", "new@x.example", "fam@x.example"),
		"registered verified": "cleo@x.example", "registered unverified": "CLEO@x.example",
		"ambiguous": "two@x.example", "known guest": "fam@x.example", "unknown": "new@x.example", "several From": "cleo@x.example",
	}[q.sender]
	m.EnvelopeFrom = address
	m.From = []Address{{Name: "Ben", Address: address}}
	m.Author = &Address{Name: "Ben", Address: address}
	switch q.sender {
	case "asserted guest":
		m.TrustedForm, h["X-Case-Customer"] = true, []string{" guest "}
	case "asserted contact":
		m.TrustedForm, h["X-Case-Customer"] = true, []string{boardCleo.ID.String()}
	case "agent":
		if q.n%2 == 0 {
			m.Login = "Agent@city.example"
		} else {
			m.Verdict = Verdict{AlignedPass: true, Words: "dkim=pass"}
		}
	case "forged domain":
		m.Verdict = Verdict{Forged: true, Words: "dmarc=fail (p=reject)"}
	case "forged agent":
		m.Login = of(q.n, 2, "", "other@city.example")
	case "registered verified":
		m.Verdict = Verdict{AlignedPass: true, Words: "spf=pass"}
	case "several From":
		m.Author, m.From = nil, of(q.n, 1, nil, append(m.From, Address{Address: "b@x.example"}))
	}
}

func (q square) setClass(m *Mail) {
	h := m.Header.(multi)
	switch q.class {
	case "human":
		switch of(q.n, 3, 0, 1, 2) {
		case 1:
			h["Auto-Submitted"] = []string{"(it is not) No (really)"}
		case 2:
			h["Precedence"] = []string{"first-class"}
		}
	case "loop":
		switch of(q.n, 3, 0, 1, 2) {
		case 0:
			m.MessageID = MessageID(boardToken, "old.example")
		case 1:
			m.TooManyHops = true
		case 2:
			h["Received"] = []string{"from a by b; x", "from c by GW.city.example " + ReceivedMark + " with ESMTP; x"}
		}
	case "dsn":
		if of(q.n, 3, true, false) {
			h["Content-Type"] = []string{"Multipart/Report;\tboundary=b; report-type=\"Delivery-Status\""}
		} else {
			m.EnvelopeFrom, h["X-Failed-Recipients"] = "", []string{"ben@x.example"}
		}
		m.Notification = &Notification{Recipients: []ReportedRecipient{{Address: "ben@x.example", Action: "failed", Status: "5.1.1"}}}
	case "report":
		h["Content-Type"] = []string{"multipart/report; report-type=" + of(q.n, 3, "disposition-notification", "feedback-report")}
		m.Notification = &Notification{}
	case "auto-reply":
		switch of(q.n, 3, 0, 1, 2, 3) {
		case 0:
			h["Auto-Submitted"] = []string{"auto-replied (vacation)"}
		case 1:
			m.EnvelopeFrom = ""
		case 2:
			h["X-Autoreply"] = []string{"yes"}
		case 3:
			h["Precedence"] = []string{"auto_reply"}
		}
	case "list":
		field := of(q.n, 3, "List-Id", "List-Unsubscribe", "Precedence")
		h[field] = []string{"bulk"}
	case "auto-generated":
		h["Auto-Submitted"] = []string{of(q.n, 3, "auto-generated", "auto-notified; x=y")}
	}
}

func (q square) setTracking(m *Mail) {
	h := m.Header.(multi)
	header := func(token string) {
		ways := 5
		if m.Notification != nil {
			ways = 8
		}
		switch of(q.n, 4, 0, 1, 2, 3, 4, 5, 6, 7) % ways {
		case 0:
			h["X-Case-Ref"] = []string{token}
		case 1:
			m.InReplyTo = []string{MessageID(token, "gw.city.example")}
		case 2:
			m.References = []string{PseudoReference(token, "gw.city.example"), "theirs@x.example"}
		case 3:
			m.To = []Address{{Address: PlusAddress("311@city.example", token)}}
		case 4:
			m.CC = []Address{{Address: PlusAddress("311@CITY.example", token)}}
		case 5:
			m.Notification.Returned = &Returned{MessageID: MessageID(token, "relay.example")}
		case 6:
			m.Notification.Returned = &Returned{CaseRefs: []string{token}}
		case 7:
			m.Notification.Returned = &Returned{ReturnPath: PlusAddress("311@city.example", token)}
		}
	}
	token := boardToken
	if q.entry() == 1043 {
		token = boardMerged
	}
	switch q.tracking {
	case "T0":
		m.References = of(q.n, 4, nil, []string{"theirs@x.example"})
	case "T1 by envelope":
		m.Recipients = []string{PlusAddress("311@city.example", token)}
	case "T1 by header":
		header(token)
	case "T2", "T3":
		if m.Notification != nil && of(q.n, 4, true, false) {
			m.Notification.Returned = &Returned{MessageID: "seen@x.example"}
		} else if of(q.n, 5, true, false) {
			m.InReplyTo = []string{"seen@x.example"}
		} else {
			m.References = []string{"seen@x.example", "theirs@x.example"}
		}
	case "T4":
		token = of(q.n, 5, boardLost, boardAlien, boardUnknown, boardGuess)
		if of(q.n, 6, true, false) {
			m.Recipients = []string{PlusAddress("311@city.example", token)}
		} else {
			header(token)
		}
	}
}

func (q square) setForm(m *Mail) {
	switch q.form {
	case "forwards":
		inner := q.inner().mail()
		m.Embedded, m.CC = &inner, append(m.CC, Address{Address: "out@x.example"})
	case "one outsider":
		m.CC = append(m.CC, Address{Address: q.outsider()}, Address{Address: "agent@city.example"})
	case "two outsiders":
		m.CC = append(m.CC, Address{Address: q.outsider()}, Address{Address: "out2@x.example"})
	}
}

func (q square) outsider() string {
	return of(q.n, 6, "out@x.example", "cleo@x.example", "two@x.example", "fam@x.example")
}

// inner is the square of the message that an agent forwards: evidence of its
// own, no verdict but the agent's word.
func (q square) inner() square {
	in := q
	in.enclosed, in.form, in.tracking, in.unparsable, in.repeats = true, "", "T0", false, ""
	in.sender = of(q.n, 5, "registered verified", "unknown", "ambiguous", "known guest", "own", "several From")
	in.class = of(q.n, 6, "human", "human", "human", "list", "auto-reply", "dsn", "loop")
	if q.state != "none" && of(q.n, 7, true, false) {
		in.tracking = "T1 by header"
	}
	return in
}
