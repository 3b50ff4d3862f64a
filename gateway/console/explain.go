package console

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/store"
)

func (a *api) explainRoutes(h huma.API) {
	handle(h, get("explain-message", "/messages/{id}/explain", "What was decided about a message, or would be today", 403, 404, 501), a.explainStored)
	op := post("explain-mail", "/explain", "What would be decided about a mail; writes nothing", 422, 501)
	op.DefaultStatus = http.StatusOK
	op.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{
		"message/rfc822": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}},
	}}
	handle(h, op, a.explainMail)
}

type explainMailQuery struct {
	Role     string   `query:"role" enum:"inbound,outbound" default:"inbound" doc:"of the listener it would come in by"`
	Listener string   `query:"listener" doc:"it would come in by; none: the first of the role"`
	From     string   `query:"from" doc:"MAIL FROM; none: as the header says; <>: the null reverse-path"`
	Rcpt     []string `query:"rcpt,explode" doc:"RCPT TO; none: as the header says"`
	body     io.Reader
}

// Resolve keeps the body for reading as it comes: a mail may be large.
func (q *explainMailQuery) Resolve(ctx huma.Context) []error {
	q.body = ctx.BodyReader()
	return nil
}

func (a *api) explainMail(ctx context.Context, in *explainMailQuery) (*one[Explanation], error) {
	for _, address := range append(in.Rcpt, in.From) {
		if address != "" && address != "<>" && !message.ValidAddress(address) {
			return nil, Invalid("write such as ana@example.org", "%q is not an e-mail address", address)
		}
	}
	if in.From == "" {
		var err error
		if in.From, in.body, err = author(in.body); err != nil {
			return nil, err
		}
	}
	return a.explain(ctx, ExplainRequest{Role: in.Role, Listener: in.Listener, From: in.From, Recipients: in.Rcpt, EML: in.body})
}

// author is the MAIL FROM that a mail probably had, from its header: the
// Return-Path that a delivery left, else the author. It also returns the mail
// anew from its beginning.
func author(eml io.Reader) (from string, again io.Reader, err error) {
	var finder message.Finder
	var header, read []byte
	for done := false; !done && len(read) < message.MaxHeader; {
		chunk := make([]byte, 4096)
		n, err := eml.Read(chunk)
		var found int
		found, done = finder.Feed(chunk[:n])
		header, read = append(header, chunk[:found]...), append(read, chunk[:n]...)
		if err == io.EOF {
			break
		}
		if err != nil {
			return "", nil, err
		}
	}
	h := message.Parse(header)
	again = io.MultiReader(bytes.NewReader(read), eml)
	for _, value := range append(h.Values("Return-Path"), h.Values("From")...) {
		if strings.TrimSpace(value) == "<>" {
			break
		}
		for _, box := range message.ParseList(value) {
			if message.ValidAddress(box.Address) {
				return box.Address, again, nil
			}
		}
	}
	return "<>", again, nil
}

func (a *api) explain(ctx context.Context, req ExplainRequest) (*one[Explanation], error) {
	if a.Explain == nil {
		return nil, problem(501, "", "this program cannot explain mail yet")
	}
	e, err := a.Explain(ctx, req)
	if err != nil {
		return nil, err
	}
	e.Decision.Rules, e.Decision.Reasons = filled(e.Decision.Rules), filled(e.Decision.Reasons)
	if e.Parties == nil {
		e.Parties = []ActivityParty{}
	}
	err = a.Store.View(ctx, func(rd store.Reader) error { return assemble(rd, false).name(e.Parties) })
	return &one[Explanation]{e}, err
}

type explainStoredQuery struct {
	ByID
	Today bool `query:"today" doc:"what would be decided now"`
}

func (a *api) explainStored(ctx context.Context, in *explainStoredQuery) (*one[Explanation], error) {
	if in.Today {
		return a.explainToday(ctx, in)
	}
	detail, err := a.showMessage(ctx, &in.ByID)
	if err != nil {
		return nil, err
	}
	m := detail.Body
	return &one[Explanation]{Explanation{
		ID: m.ID, Stored: true, Role: roleOf(m.Direction), Outcome: outcome(m),
		Case: value(m.Case), Exception: value(m.Exception), Class: m.Class, Identity: m.Identity,
		CorrelationMethod: m.CorrelationMethod, Decision: m.Decision, Parties: m.Parties,
		Recipients: m.Envelope.Recipients,
	}}, nil
}

func outcome(m MessageDetail) string {
	switch {
	case m.Exception != nil:
		return "exception"
	case m.Case == nil:
		return "uncased"
	}
	return "on the case"
}

// value undoes given.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// explainToday decides a stored message again, with its Bcc where it stood: the
// rules must see what they saw. What the answer then shows of Bcc is veiled as
// everywhere.
func (a *api) explainToday(ctx context.Context, in *explainStoredQuery) (*one[Explanation], error) {
	if a.Access < Operator {
		return nil, problem(403, "ask on the gateway itself, with the casegate command", "deciding a stored message again needs its Bcc")
	}
	eml, m, err := a.openEML(ctx, in.ID, store.AsReceived, true)
	if err != nil {
		return nil, err
	}
	defer eml.Close()
	out, err := a.explain(ctx, ExplainRequest{
		Role: roleOf(m.Direction), Listener: m.Envelope.Listener, From: "<" + m.Envelope.From + ">", Recipients: m.Envelope.Recipients, Stored: m.ID, EML: eml,
	})
	if err != nil {
		return nil, err
	}
	out.Body.ID = m.ID
	v := veilFor(in.BCC, m)
	out.Body.Decision.Reasons = v.texts(out.Body.Decision.Reasons)
	out.Body.Recipients = v.addresses(out.Body.Recipients)
	out.Body.Parties = v.activityParties(out.Body.Parties)
	return out, nil
}

// roleOf is the listener's role that a direction comes in by.
func roleOf(d store.Direction) string {
	if d == store.Outgoing {
		return "outbound"
	}
	return "inbound"
}
