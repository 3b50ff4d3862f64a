package resolver

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/store"
)

// desk is a submission under test: the case 1042 of Ben, who shares an address
// with Ana; Cleo is registered; two@x.example is shared; kim is an agent.
type desk struct {
	*town
	sub Submission
	ben store.Contact
}

func newDesk(to ...string) *desk {
	ben := contact(2, store.Guest, "Ben", "fam@x.example", "ben@work.example")
	tw := newTown(ben,
		contact(1, store.Guest, "Ana", "fam@x.example", "ana@work.example"),
		contact(3, store.Registered, "Cleo", "cleo@x.example", "cleo@home.example"),
		contact(4, store.Registered, "Dora", "two@x.example", "dora@home.example"),
		contact(5, store.Registered, "Emil", "two@x.example")).used("fam@x.example")
	kim := store.Agent{ID: id(9), Name: "Kim Agent", EmailAddresses: []string{"kim@city.example"}}
	tw.facts.Holders["kim@city.example"] = store.Holders{Agents: []store.Agent{kim}}
	return &desk{tw, answer(tw, to...), ben}
}

func (d *desk) decide() OutboundDecision { return Outbound(d.sub, d.facts, d.settings) }

func (d *desk) editCase(f func(*store.Case)) {
	c := d.facts.Cases[1042]
	f(&c.Case)
	d.facts.Cases[1042] = c
}

// tells fails unless the reasons hold the words.
func tells(t *testing.T, d OutboundDecision, words ...string) {
	t.Helper()
	all := strings.Join(d.Reasons, "\n")
	for _, w := range words {
		if !strings.Contains(all, w) {
			t.Errorf("the reasons do not say %q:\n%s", w, all)
		}
	}
}

// sends fails unless the message is shown and mailed as said.
func sends(t *testing.T, d OutboundDecision, shown []string, mailed ...string) {
	t.Helper()
	if d.Refusal != nil {
		t.Fatalf("refused: %s", d.Refusal.Text)
	}
	if got := shownAs(d); !slices.Equal(got, shown) {
		t.Errorf("shown %q, want %q\n%s", got, shown, strings.Join(d.Reasons, "\n"))
	}
	if got := d.Recipients(); !slices.Equal(got, mailed) {
		t.Errorf("mailed to %q, want %q\n%s", got, mailed, strings.Join(d.Reasons, "\n"))
	}
}

func refuses(t *testing.T, d OutboundDecision, code int, words string) {
	t.Helper()
	if d.Refusal == nil || d.Refusal.Code != code || !strings.Contains(d.Refusal.Text, words) {
		t.Errorf("refusal %+v, want %d %q", d.Refusal, code, words)
	}
}

func TestWhoMaySend(t *testing.T) {
	for _, c := range []struct {
		name    string
		login   string
		from    string
		sendAs  []string // of the agent
		refusal string
	}{
		{name: "an agent as every mailbox", login: "kim@city.example", from: "parks@city.example"},
		{name: "an agent as himself", login: "kim@city.example", from: "Kim@City.example"},
		{name: "an agent outside his list", login: "kim@city.example", from: "parks@city.example", sendAs: []string{"311@city.example"},
			refusal: "kim@city.example is unable to send as parks@city.example: send_as of user kim@city.example allows 311@city.example"},
		{name: "an agent within his list", login: "kim@city.example", from: "mayor@city.example", sendAs: []string{"mayor@city.example"}},
		{name: "an agent as somebody else", login: "kim@city.example", from: "lee@city.example",
			refusal: "kim@city.example is unable to send as lee@city.example: send_as of user kim@city.example allows kim@city.example, 311@city.example, parks@city.example"},
		{name: "a login that is no agent's", login: "gone@city.example", from: "311@city.example", refusal: "no agent has the address gone@city.example"},
		{name: "a peer as an agent", from: "kim@city.example"},
		{name: "a peer as nobody of ours", from: "kim@elsewhere.example", refusal: "unable to send as kim@elsewhere.example: listeners[2].send_as allows 311@city.example"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk("To fam@x.example")
			d.sub.Login, d.sub.Author.Address = c.login, c.from
			h := d.facts.Holders["kim@city.example"]
			h.Agents[0].SendAs = c.sendAs
			got := d.decide()
			if c.refusal == "" && got.Refusal != nil {
				t.Errorf("refused: %s", got.Refusal.Text)
			}
			if c.refusal != "" {
				refuses(t, got, 550, c.refusal)
			}
		})
	}
}

func TestSenderShown(t *testing.T) {
	for _, c := range []struct{ sender, login, from, shown, name string }{
		{"user", "", "311@city.example", "", ""},
		{"user", "kim@city.example", "311@city.example", "kim@city.example", "Kim Agent"},
		{"user", "kim@city.example", "kim@city.example", "", ""},
		{"template", "kim@city.example", "parks@city.example", "", ""},
		{"mailbox", "kim@city.example", "kim@city.example", "311@city.example", ""},
		{"mailbox", "", "parks@city.example", "311@city.example", ""},
	} {
		d := newDesk("To fam@x.example")
		d.settings.Sender, d.sub.Login, d.sub.Author.Address = c.sender, c.login, c.from
		got := d.decide()
		if got.Refusal != nil || got.From != c.shown || got.FromName != c.name {
			t.Errorf("%+v: From %q named %q, %+v", c, got.From, got.FromName, got.Refusal)
		}
	}
}

func TestBindingOrder(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*desk)
		number uint64
		method string
		says   string
	}{
		{"X-Case-Number of a trusted application", func(d *desk) {
			d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Number": " 7 ", "X-Case-Ref": d.token()}
		}, 7, byTrackingHeader, "conflict: the token in X-Case-Ref names case 1042; X-Case-Number wins"},
		{"X-Case-Number of anybody else", func(d *desk) { d.sub.Header = fields{"X-Case-Number": "7"} }, 1042, byInReplyTo, ""},
		{"X-Case-Number that is no number", func(d *desk) { d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Number": "CAS-7"} }, 1042, byInReplyTo, "no number"},
		{"X-Case-Ref before In-Reply-To", func(d *desk) {
			ref, _ := Sign(d.facts.Installation, 7, 0)
			d.sub.Header = fields{"X-Case-Ref": ref}
		}, 7, byTrackingHeader, "conflict"},
		{"what is signed before what is not", func(d *desk) {
			d.sub.InReplyTo, d.sub.References = []string{"seven@x.example"}, d.sub.InReplyTo
		}, 1042, byReferences, ""},
		{"a Message-ID before a token in To, whoever takes part", func(d *desk) {
			d.sub.InReplyTo = []string{"seven@x.example"}
			d.sub.To = append(d.sub.To, Address{Address: PlusAddress("311@city.example", d.token())})
		}, 7, byForeignID, ""},
		{"a token in To", func(d *desk) {
			d.sub.InReplyTo = nil
			d.sub.To = append(d.sub.To, Address{Address: PlusAddress("311@city.example", d.token())})
		}, 1042, byPlusAddress, ""},
		{"the subject's tag", func(d *desk) {
			d.sub.InReplyTo, d.sub.Subject, d.settings.SubjectTag = nil, "Re: light [Case 7]", true
		}, 7, bySubject, ""},
		{"the subject's tag, switched off", func(d *desk) { d.sub.InReplyTo, d.sub.Subject = nil, "Re: light [Case 7]" }, 0, byNothing, "uncased"},
		{"a merged case", func(d *desk) { d.editCase(func(c *store.Case) { c.State, c.MergedInto = store.Cancelled, 7 }) }, 7, byInReplyTo, ""},
		{"a resolved case", func(d *desk) { d.state(store.Resolved, noon) }, 1042, byInReplyTo, "case 1042 is resolved and stays so"},
		{"a cancelled case", func(d *desk) { d.state(store.Cancelled, noon) }, 1042, byInReplyTo, "case 1042 is cancelled and stays so"},
		{"mail that was only observed", func(d *desk) {
			d.sub.InReplyTo = []string{"observed@x.example"}
			d.facts.MessageIDs["observed@x.example"] = []store.MessageRef{{ID: id(77), Own: true}}
		}, 0, byNothing, "uncased"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk("To fam@x.example")
			d.facts.Cases[7] = store.CaseFacts{Case: store.Case{Number: 7, State: store.Active, Customer: id(2)}, Customer: d.ben, Used: map[string]store.Usage{}}
			d.facts.MessageIDs["seven@x.example"] = []store.MessageRef{{ID: id(70), Case: 7, Own: true, Direction: store.Incoming}}
			c.change(d)
			before := d.facts.Cases[1042].Case.State
			got := d.decide()
			if got.Refusal != nil || got.Case.Number != c.number || got.Method != c.method {
				t.Errorf("case %d by %s, want %d by %s; %+v\n%s", got.Case.Number, got.Method, c.number, c.method, got.Refusal, strings.Join(got.Reasons, "\n"))
			}
			if got.Case.Number == 1042 && got.Case.State != before {
				t.Errorf("the case is %s now", got.Case.State)
			}
			tells(t, got, c.says)
		})
	}
	d := newDesk("To fam@x.example")
	d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Number": "99"}
	refuses(t, d.decide(), 550, "X-Case-Number names case 99, which doesn't exist")
}

func TestMode(t *testing.T) {
	replyTo := func(d *desk, sender store.ID, identity string, to ...string) {
		d.sub.InReplyTo = append(d.sub.InReplyTo, "theirs@x.example")
		d.facts.MessageIDs["theirs@x.example"] = []store.MessageRef{{ID: id(60), Case: 1042, Own: true}}
		d.facts.Parents[id(60)] = store.Message{ID: id(60), Case: 1042, Direction: store.Incoming, Identity: identity, ReplyTo: to,
			Parties: []store.Party{{Role: store.RoleSender, Party: store.PartyRef{Kind: store.PartyContact, ID: sender}}}}
	}
	for _, c := range []struct {
		name   string
		to     []string
		change func(*desk)
		mode   Mode
		mailed []string
	}{
		{"the customer in Cc", []string{"Cc fam@x.example"}, nil, Reply, []string{"fam@x.example"}},
		{"only ourselves", []string{"To 311@city.example"}, nil, Reply, []string{"fam@x.example"}},
		{"somebody else", []string{"To cleo@x.example"}, nil, Consult, []string{"cleo@x.example"}},
		{"a trusted application wants a reply", []string{"To cleo@x.example"}, func(d *desk) {
			d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Mode": "Reply"}
		}, Reply, []string{"cleo@x.example", "fam@x.example"}},
		{"anybody else wants a reply", []string{"To cleo@x.example"}, func(d *desk) { d.sub.Header = fields{"X-Case-Mode": "reply"} }, Consult, []string{"cleo@x.example"}},
		{"a trusted application consults an agent", []string{"To kim@city.example", "Cc 311@city.example"}, func(d *desk) {
			d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Mode": "consult"}
		}, Consult, []string{"kim@city.example"}},
		{"a consult that shows the customer is none", []string{"To fam@x.example"}, func(d *desk) {
			d.sub.ControlHeaders, d.sub.Header = true, fields{"X-Case-Mode": "consult"}
		}, Reply, []string{"fam@x.example"}},
		{"to the customer's Reply-To", []string{"To other@x.example"}, func(d *desk) { replyTo(d, d.ben.ID, "known guest", "Other@x.example") }, Reply, []string{"other@x.example", "fam@x.example"}},
		{"to a third party's Reply-To", []string{"To other@x.example"}, func(d *desk) { replyTo(d, id(3), "registered", "other@x.example") }, Consult, []string{"other@x.example"}},
		{"to the Reply-To of a forged mail", []string{"To other@x.example"}, func(d *desk) { replyTo(d, d.ben.ID, "forged", "other@x.example") }, Consult, []string{"other@x.example"}},
		{"the customer's Reply-To opens no way to who is only linked", []string{"To cleo@x.example", "Cc ana@work.example"}, func(d *desk) { replyTo(d, d.ben.ID, "known guest", "ana@work.example") }, Reply, []string{"cleo@x.example", "fam@x.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(c.to...)
			if c.change != nil {
				c.change(d)
			}
			got := d.decide()
			if got.Mode != c.mode || !slices.Equal(got.Recipients(), c.mailed) {
				t.Errorf("%s to %q, want %s to %q\n%s", got.Mode, got.Recipients(), c.mode, c.mailed, strings.Join(got.Reasons, "\n"))
			}
		})
	}
}

// Which of the customer's addresses O4 takes: the last used on this case, else
// his first, else that of who opened the case.
func TestCustomersAddress(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*desk, *store.Contact)
		want   string
	}{
		{"the last used", func(d *desk, _ *store.Contact) {
			d.facts.Cases[1042].Used["ben@work.example"] = store.Usage{Last: noon.Add(time.Hour)}
		}, "ben@work.example"},
		{"the first, none used", func(d *desk, _ *store.Contact) { clear(d.facts.Cases[1042].Used) }, "fam@x.example"},
		{"who opened the case", func(d *desk, c *store.Contact) {
			c.EmailAddresses = nil
			d.editCase(func(k *store.Case) { k.Opener = "opener@x.example" })
		}, "opener@x.example"},
		{"not one that he gave up", func(d *desk, c *store.Contact) { c.EmailAddresses[0].To = noon.Add(-time.Hour) }, "ben@work.example"},
		{"none", func(_ *desk, c *store.Contact) { c.EmailAddresses = nil }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk("To 311@city.example")
			k := d.facts.Cases[1042]
			k.Customer.EmailAddresses = slices.Clone(k.Customer.EmailAddresses)
			c.change(d, &k.Customer)
			k.Case = d.facts.Cases[1042].Case
			d.facts.Cases[1042] = k
			got := d.decide()
			if c.want == "" {
				refuses(t, got, 550, "has no e-mail address")
				return
			}
			sends(t, got, []string{"To " + c.want}, c.want)
		})
	}
}

// What a person said about an address in this case counts, for Case.Customer
// and for others; and nothing else follows from it.
func TestHandLinks(t *testing.T) {
	for _, c := range []struct {
		name  string
		link  store.HandLink
		to    []string
		shown []string
		rule  string
	}{
		{"Case.Customer's", store.HandLink{Address: "two@x.example", Contact: id(2)}, []string{"Cc two@x.example"}, []string{"To two@x.example"}, "O3"},
		{"somebody else's", store.HandLink{Address: "two@x.example", Contact: id(4)}, []string{"To fam@x.example", "To two@x.example"}, []string{"To fam@x.example", "CC two@x.example"}, "O6"},
		{"nobody's", store.HandLink{Address: "other@x.example", Contact: id(4)}, []string{"To fam@x.example", "To two@x.example"}, []string{"To fam@x.example", "CC two@x.example!"}, "O7"},
		{"an address of no contact", store.HandLink{Address: "new@x.example", Contact: id(4)}, []string{"To fam@x.example", "Cc new@x.example"}, []string{"To fam@x.example", "CC new@x.example"}, "O3"},
		{"who is no longer only linked", store.HandLink{Address: "fam@x.example", Contact: id(1)}, []string{"To ben@work.example", "Cc ana@work.example"}, []string{"To ben@work.example", "CC ana@work.example"}, "O3"},
		{"who still is", store.HandLink{Address: "fam@x.example", Contact: id(2)}, []string{"To fam@x.example", "Cc ana@work.example"}, []string{"To fam@x.example"}, "O5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(c.to...)
			c.link.By = "kim"
			d.editCase(func(k *store.Case) { k.HandLinks = []store.HandLink{c.link} })
			got := d.decide()
			if shown := shownAs(got); !slices.Equal(shown, c.shown) || !slices.Contains(got.Rules, c.rule) {
				t.Errorf("shown %q by %v, want %q by %s", shown, got.Rules, c.shown, c.rule)
			}
		})
	}
}

func TestNewRecipients(t *testing.T) {
	for _, c := range []struct {
		name, policy string
		to           []string
		used         string
		held         string
	}{
		{"allowed", "allow", []string{"To fam@x.example", "Cc new@x.example"}, "", ""},
		{"held", "hold", []string{"To fam@x.example", "Cc new@x.example"}, "", "new@x.example is on the case for the first time"},
		{"a blind one is not named", "hold", []string{"To fam@x.example", "Bcc new@x.example"}, "", "a blind recipient's address is on the case for the first time"},
		{"on the case before", "hold", []string{"To fam@x.example", "Cc new@x.example"}, "new@x.example", ""},
		{"a contact", "hold", []string{"To fam@x.example", "Cc cleo@x.example"}, "", ""},
	} {
		d := newDesk(c.to...)
		d.settings.NewRecipients = c.policy
		if c.used != "" {
			d.used(c.used)
		}
		got := d.decide()
		if got.Refusal != nil || (c.held == "") != (got.Hold == "") || !strings.HasPrefix(got.Hold, c.held) {
			t.Errorf("%s: held %q, want %q; %+v", c.name, got.Hold, c.held, got.Refusal)
		}
		if slices.Contains(got.Flags, "new-recipient") != (c.used == "" && c.name != "a contact") || slices.Contains(got.Flags, "held") != (c.held != "") {
			t.Errorf("%s: flags %q", c.name, got.Flags)
		}
	}
}

func TestBounced(t *testing.T) {
	failed := func(address, status string, at time.Time) store.DeliveryEvent {
		return store.DeliveryEvent{At: at, Recipient: address, Action: "failed", Status: status}
	}
	for _, c := range []struct {
		name    string
		to      []string
		events  []store.DeliveryEvent
		wrote   time.Time // the customer, again
		held    bool
		flagged bool
	}{
		{"the only To", []string{"To fam@x.example"}, []store.DeliveryEvent{failed("FAM@x.example", "5.1.1", noon)}, time.Time{}, true, true},
		{"not the only To", []string{"To fam@x.example", "To kim@city.example"}, []store.DeliveryEvent{failed("fam@x.example", "5.1.1", noon)}, time.Time{}, false, true},
		{"in Cc", []string{"To fam@x.example", "Cc cleo@x.example"}, []store.DeliveryEvent{failed("cleo@x.example", "5.1.1", noon)}, time.Time{}, false, true},
		{"not for good", []string{"To fam@x.example"}, []store.DeliveryEvent{failed("fam@x.example", "4.2.2", noon)}, time.Time{}, false, false},
		{"and delivered later", []string{"To fam@x.example"}, []store.DeliveryEvent{failed("fam@x.example", "5.1.1", noon), {At: noon.Add(time.Hour), Recipient: "fam@x.example", Action: "delivered"}}, time.Time{}, false, false},
		{"and he wrote later", []string{"To fam@x.example"}, []store.DeliveryEvent{failed("fam@x.example", "5.1.1", noon)}, noon.Add(time.Hour), false, false},
		{"and he wrote before", []string{"To fam@x.example"}, []store.DeliveryEvent{failed("fam@x.example", "5.1.1", noon)}, noon.Add(-time.Hour), true, true},
		{"somebody else's", []string{"To fam@x.example"}, []store.DeliveryEvent{failed("ron@x.example", "5.1.1", noon)}, time.Time{}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDesk(c.to...)
			d.settings.ToPolicy = "keep"
			d.editCase(func(k *store.Case) { k.Ordinal, k.Flags = 3, []string{"customer-bounced"} })
			q := AskFurther(d.sub, d.facts)
			if len(q.Ordinals) != 3 {
				t.Fatalf("asks for %v", q.Ordinals)
			}
			d.facts.Answered = map[store.CaseOrdinal]store.Message{
				q.Ordinals[0]: {ID: id(61), Case: 1042, Direction: store.Outgoing, Events: c.events},
				q.Ordinals[1]: {ID: id(62), Case: 1042, Direction: store.Incoming, From: "fam@x.example", ReceivedAt: c.wrote},
			}
			got := d.decide()
			if (got.Hold != "") != c.held || slices.Contains(got.Flags, "bounced-recipient") != c.flagged || slices.Contains(got.Rules, "O11") != c.flagged {
				t.Errorf("held %q, flags %q, rules %v", got.Hold, got.Flags, got.Rules)
			}
			if !slices.Contains(got.Recipients(), "fam@x.example") {
				t.Error("it is not kept")
			}
		})
	}
}

func TestBccCurrentUser(t *testing.T) {
	for _, c := range []struct {
		name, from, login, sender string
		uncased                   bool
		mailed                    []string
		says                      string
	}{
		{"the agent in From", "kim@city.example", "", "user", false, []string{"fam@x.example", "kim@city.example"}, "bcc_current_user adds kim@city.example"},
		{"the agent who signed in", "311@city.example", "kim@city.example", "user", false, []string{"fam@x.example", "kim@city.example"}, ""},
		{"nobody in From", "311@city.example", "", "user", false, []string{"fam@x.example"}, "no agent has 311@city.example: not applied"},
		{"a template", "311@city.example", "kim@city.example", "template", false, []string{"fam@x.example"}, "not applied"},
		{"the mailbox is shown", "kim@city.example", "", "mailbox", false, []string{"fam@x.example", "kim@city.example"}, ""},
		{"uncased", "kim@city.example", "", "user", true, []string{"fam@x.example", "kim@city.example"}, "only rule O10 applies"},
	} {
		d := newDesk("To fam@x.example")
		d.settings.BccCurrentUser, d.settings.Sender = true, c.sender
		d.sub.Author.Address, d.sub.Login = c.from, c.login
		if c.uncased {
			d.sub.InReplyTo = nil
		}
		got := d.decide()
		if !slices.Equal(got.Recipients(), c.mailed) {
			t.Errorf("%s: mailed to %q", c.name, got.Recipients())
		}
		tells(t, got, c.says)
	}
}

func TestDirectoryOut(t *testing.T) {
	for policy, want := range map[string][]string{
		"text": {"To fam@x.example", "CC kim@city.example", "CC cleo@x.example!", "BCC two@x.example"},
		"pass": {"To fam@x.example", "CC kim@city.example", "CC cleo@x.example", "BCC two@x.example"},
	} {
		d := newDesk("To fam@x.example", "Cc kim@city.example", "To cleo@x.example", "Bcc two@x.example")
		d.sub.DirectoryOut, d.settings.OnUnknown = "the directory does not answer", policy
		got := d.decide()
		shown := shownAs(got)
		slices.Sort(shown)
		slices.Sort(want)
		if got.Refusal != nil || !slices.Equal(shown, want) {
			t.Errorf("%s: shown %q, want %q; %+v", policy, shown, want, got.Refusal)
		}
		tells(t, got, "on_unknown: "+policy)
	}
	d := newDesk("To fam@x.example")
	d.sub.DirectoryOut = "the directory does not answer"
	refuses(t, d.decide(), 451, "try again later")
	d.sub.InReplyTo = nil
	sends(t, d.decide(), []string{"To fam@x.example"}, "fam@x.example") // uncased: nobody is looked up
	d.settings.Uncased = "create"
	refuses(t, d.decide(), 451, "try again later")
}

func TestUncasedCreate(t *testing.T) {
	create := func(to ...string) *desk {
		d := newDesk(to...)
		d.sub.InReplyTo, d.settings.Uncased, d.sub.NewNumber = nil, "create", 2000
		return d
	}
	for _, c := range []struct {
		name     string
		to       []string
		customer string // name of; guest: a new one
		shown    []string
	}{
		{"a registered contact", []string{"To cleo@x.example", "Cc 311@city.example"}, "Cleo", []string{"To cleo@x.example"}},
		{"a stranger", []string{"To new@x.example", "Cc kim@city.example"}, "guest", []string{"To new@x.example", "CC kim@city.example"}},
		{"guests share it: a new one", []string{"Cc fam@x.example"}, "guest", []string{"To fam@x.example"}},
		{"two registered contacts share it: a new guest", []string{"To two@x.example", "Bcc kim@city.example"}, "guest", []string{"To two@x.example", "BCC kim@city.example"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := create(c.to...)
			got := d.decide()
			name := got.Customer.Name
			if got.Guest != nil {
				name = "guest"
			}
			k := got.Case
			if !got.Opens || name != c.customer || k.Number != 2000 || k.Ordinal != 1 || k.Queue != "general" || k.Mailbox != "311@city.example" || k.Customer != got.Customer.ID || k.State != store.Active {
				t.Errorf("opens %v for %s: %+v", got.Opens, name, k)
			}
			if shown := shownAs(got); !slices.Equal(shown, c.shown) || got.Mode != Reply {
				t.Errorf("%s %q, want %q", got.Mode, shown, c.shown)
			}
			tok, _ := readToken(got.Token)
			if tok.Case != 2000 || verifyToken(d.facts.Installation, got.Token) != nil {
				t.Errorf("token %+v", tok)
			}
		})
	}
	refuses(t, create("To cleo@x.example", "Cc new@x.example").decide(), 550, "2 outsiders are addressed: write to the customer alone to open a case")
	refuses(t, create("To cleo@x.example", "Bcc new@x.example").decide(), 550, "2 outsiders")
	refuses(t, create("To 311@city.example", "Bcc new@x.example").decide(), 550, "put the customer in To")
	for _, d := range []*desk{create("To kim@city.example"), create("To cleo@x.example")} {
		if d.sub.Recipients[0] == "cleo@x.example" {
			d.sub.Header = fields{"Auto-Submitted": "auto-replied"}
		}
		if got := d.decide(); got.Refusal != nil || got.Opens || got.Case.Number != 0 {
			t.Errorf("%q: %+v opens %v", d.sub.Recipients, got.Refusal, got.Opens)
		}
	}
}

func TestUnresolvedOriginalsThatSomebodyNamed(t *testing.T) {
	d := newDesk("To fam@x.example")
	d.settings.UnresolvedOriginals = "bcc"
	d.sub.InReplyTo = append(d.sub.InReplyTo, "theirs@x.example")
	d.facts.MessageIDs["theirs@x.example"] = []store.MessageRef{{ID: id(60), Case: 1042, Own: true}}
	d.facts.Parents[id(60)] = store.Message{ID: id(60), Case: 1042, Parties: []store.Party{
		{Role: store.RoleCC, AddressUsed: "two@x.example"}, {Role: store.RoleCC, AddressUsed: "other@x.example"},
		{Role: store.RoleSender, AddressUsed: "sender@x.example"}, {Role: store.RoleTo, AddressUsed: "311@city.example"},
	}}
	d.editCase(func(c *store.Case) { c.HandLinks = []store.HandLink{{Address: "two@x.example", Contact: id(4)}} })
	sends(t, d.decide(), []string{"To fam@x.example", "BCC other@x.example!"}, "fam@x.example", "other@x.example")
}

// However long the ids are, the field stays within bounds and keeps what it can.
func TestReferencesOfAnyLength(t *testing.T) {
	long := strings.Repeat("x", 2000) + "@x.example"
	d := newDesk("To fam@x.example")
	d.sub.InReplyTo = append([]string{long}, d.sub.InReplyTo...)
	d.sub.References = []string{"old@x.example", long, "new@x.example"}
	got := d.decide()
	if value := "<" + strings.Join(got.References, "> <") + ">"; len(value) > maxReferences || !strings.Contains(value, "<old@x.example> <new@x.example>") {
		t.Errorf("%d bytes: %.300s", len(value), value)
	}
}
