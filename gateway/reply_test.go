package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/store"
)

func TestReply(t *testing.T) {
	no := Verdict{550, [3]int{5, 1, 1}, "no such mailbox"}
	wrap := func(err error) error { return fmt.Errorf("a: %w", fmt.Errorf("b: %w", err)) }
	for _, x := range []struct {
		err  error
		want string // without the id
	}{
		{no, "550 5.1.1 no such mailbox"},
		{&no, "550 5.1.1 no such mailbox"},
		{wrap(no), "550 5.1.1 no such mailbox"},
		{wrap(&no), "550 5.1.1 no such mailbox"},
		{errors.Join(io.EOF, no), "550 5.1.1 no such mailbox"},
		{Verdict{Code: 554, Text: "x"}, "554 5.0.0 x"},
		{Verdict{451, [3]int{5, 1, 1}, "x"}, "451 4.0.0 x"},
		{Verdict{421, [3]int{4, 7, 0}, "x"}, "421 4.7.0 x"},
		{Verdict{550, [3]int{5, 0, 0}, "a\r\n250 b\x00\x1b[é"}, "550 5.0.0 a??250 b??[?"},
		{Verdict{550, [3]int{5, 0, 0}, strings.Repeat("x", 2000)}, "550 5.0.0 " + strings.Repeat("x", textMax)},
		{Verdict{Code: 250, Text: "not a refusal"}, "451 4.3.0 Local error, try again later"},
		{Verdict{}, "451 4.3.0 Local error, try again later"},
		{(*Verdict)(nil), "451 4.3.0 Local error, try again later"},
		{store.ErrFull, "452 4.3.1 No room to store the message, try again later"},
		{wrap(store.ErrFull), "452 4.3.1 No room to store the message, try again later"},
		{context.Canceled, "451 4.3.2 Shutting down, try again later"},
		{wrap(context.Canceled), "451 4.3.2 Shutting down, try again later"},
		{errDraining, "451 4.3.2 Shutting down, try again later"},
		{context.DeadlineExceeded, "451 4.3.0 Local error, try again later"},
		{store.ErrUnavailable, "451 4.3.0 Local error, try again later"},
		{wrap(store.ErrNotFound), "451 4.3.0 Local error, try again later"},
		{&smtp.SMTPError{Code: 554, Message: "secret"}, "451 4.3.0 Local error, try again later"},
		{errors.New("secret"), "451 4.3.0 Local error, try again later"},
	} {
		var log strings.Builder
		e := reply(slog.New(slog.NewTextHandler(&log, nil)), x.err)
		got, id, _ := strings.Cut(fmt.Sprintf("%d %s %s", e.Code, enhanced(e), e.Message), " (id ")
		if got != x.want {
			t.Errorf("%v: got %q, want %q", x.err, got, x.want)
		}
		local := strings.Contains(x.want, "Local error")
		if id = strings.TrimSuffix(id, ")"); local != (len(id) == 12) || local && !strings.Contains(log.String(), "id="+id) {
			t.Errorf("%v: id %q, log %s", x.err, id, log.String())
		}
	}
}

func TestAccepted(t *testing.T) {
	for want, r := range map[string]Receipt{
		"accepted 01 case 7": {ID: "01", Text: "accepted 01 case 7"},
		"accepted 01":        {ID: "01"},
		"a?b":                {ID: "01", Text: "a\nb"},
	} {
		if e := accepted(r); e.Code != 250 || enhanced(e) != "2.0.0" || e.Message != want {
			t.Errorf("%+v: got %+v", r, e)
		}
	}
}
