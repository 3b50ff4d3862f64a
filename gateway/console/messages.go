package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"

	"github.com/danielgtaylor/huma/v2"

	"github.com/casegate/casegate/store"
)

func (a *api) messageRoutes(h huma.API) {
	handle(h, get("list-messages", "/messages", "List messages, newest first; of one case oldest first"), a.listMessages)
	handle(h, get("show-message", "/messages/{id}", "Show a message", 403, 404), a.showMessage)
	handle(h, get("list-exceptions", "/exceptions", "List the exceptions, newest first"), a.listExceptions)
	handle(h, get("show-exception", "/exceptions/{id}", "Show a message of the exceptions list", 403, 404), a.showException)
	export := get("export-message", "/messages/{id}/eml", "The EML as received or as sent, byte for byte", 403, 404, 501)
	export.Responses = map[string]*huma.Response{"200": {
		Description: "OK", Content: map[string]*huma.MediaType{"message/rfc822": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}},
	}}
	handle(h, export, a.exportMessage)
}

type messagesQuery struct {
	Paging
	Case uint64 `query:"case" doc:"only messages of this case"`
}

func (a *api) listMessages(ctx context.Context, in *messagesQuery) (*list[MessageRow], error) {
	return a.messageRows(ctx, &in.Paging, store.MessageFilter{Case: in.Case})
}

func (a *api) listExceptions(ctx context.Context, in *Paging) (*list[MessageRow], error) {
	return a.messageRows(ctx, in, store.MessageFilter{Exceptions: true})
}

func (a *api) messageRows(ctx context.Context, p *Paging, filter store.MessageFilter) (*list[MessageRow], error) {
	return fetch(ctx, a, p, func(rd store.Reader) ([]MessageRow, store.Cursor, error) {
		messages, next, err := rd.Messages(filter, p.page())
		var rows []MessageRow
		for _, m := range messages {
			rows = append(rows, messageRow(m))
		}
		return rows, next, err
	})
}

func (a *api) showMessage(ctx context.Context, in *ByID) (*one[MessageDetail], error) {
	return a.message(ctx, in, func(store.Message) error { return nil })
}

func (a *api) showException(ctx context.Context, in *ByID) (*one[MessageDetail], error) {
	return a.message(ctx, in, func(m store.Message) error {
		if m.Exception != "" {
			return nil
		}
		return problem(404, "casegate message show shows it", "message %s is not on the exceptions list", m.ID)
	})
}

// message shows one message that meets a condition.
func (a *api) message(ctx context.Context, in *ByID, meets func(store.Message) error) (*one[MessageDetail], error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	var out one[MessageDetail]
	err = a.Store.View(ctx, func(rd store.Reader) error {
		m, err := findMessage(rd, in.ID)
		if err == nil {
			err = meets(m)
		}
		if err != nil {
			return err
		}
		out.Body, err = assemble(rd, bcc).messageDetail(m)
		return err
	})
	return &out, err
}

// findMessage reads a message by the text of its id.
func findMessage(rd store.Reader, text string) (store.Message, error) {
	id, err := store.ParseID(text)
	if err != nil {
		return store.Message{}, problem(404, "casegate message list shows the ids", "%q is not the id of a message", text)
	}
	m, err := rd.Message(id)
	if errors.Is(err, store.ErrNotFound) {
		return m, problem(404, "casegate message list shows what there is", "no message %s", id)
	}
	return m, err
}

type exportQuery struct {
	ByID
	As store.As `query:"as" enum:"received,sent" default:"received"`
}

func (a *api) exportMessage(ctx context.Context, in *exportQuery) (*huma.StreamResponse, error) {
	bcc, err := a.mayBCC(in.BCC)
	if err != nil {
		return nil, err
	}
	eml, m, err := a.openEML(ctx, in.ID, in.As, bcc)
	if err != nil {
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hctx huma.Context) {
		defer eml.Close()
		hctx.SetHeader("Content-Type", "message/rfc822")
		hctx.SetHeader("Content-Disposition", fmt.Sprintf(`attachment; filename="%s-%s.eml"`, m.ID, in.As))
		if _, err := io.Copy(hctx.BodyWriter(), eml); err != nil {
			a.Logger.Error("exporting a message", "id", m.ID, "error", err)
			panic(http.ErrAbortHandler) // cut the answer short, so that nobody takes the rest for the whole
		}
	}}, nil
}

// openEML streams an archived message: its header block, with the fields kept
// apart put back for those who may see them, and the body as it left.
func (a *api) openEML(ctx context.Context, text string, as store.As, bcc bool) (io.ReadCloser, store.Message, error) {
	var m store.Message
	var block []byte
	var apart []store.Apart
	err := a.Store.View(ctx, func(rd store.Reader) (err error) {
		if m, err = findMessage(rd, text); err != nil {
			return err
		}
		if as == store.AsSent && m.Archived.SentSHA256 == "" {
			return problem(404, "write --as received", "message %s was never sent on", m.ID)
		}
		block, apart, err = rd.Header(m.ID, as)
		block, apart = slices.Clone(block), slices.Clone(apart)
		return err
	})
	if err != nil {
		return nil, m, err
	}
	if as == store.AsSent && len(m.Archived.Transforms) > 0 && a.Transform == nil {
		return nil, m, problem(501, "write --as received", "this program cannot apply %v to message %s", m.Archived.Transforms, m.ID)
	}
	archived, err := a.Store.Open(ctx, m.ID, as)
	if err != nil {
		return nil, m, err
	}
	if _, err := io.CopyN(io.Discard, archived, int64(len(block))); err != nil {
		archived.Close()
		return nil, m, fmt.Errorf("message %s ends within its header: %w", m.ID, err)
	}
	eml, err := a.joined(archived, m, as, block, apart, bcc)
	return eml, m, err
}
