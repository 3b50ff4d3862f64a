package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/gateway/message"
	"github.com/casegate/casegate/resolver"
	"github.com/casegate/casegate/store"
)

// TestHeadersWithoutEnd: a header that is cut off, at whatever octet, or that ends
// with the message, in the middle of a line even, goes on as it came: below our
// Received field, with clean line ends.
func TestHeadersWithoutEnd(t *testing.T) {
	lines := strings.Repeat("X-Padding: "+strings.Repeat("x", 85)+"\r\n", message.MaxHeader/98+10)
	fields := strings.Repeat("a: b\r\n", message.MaxFields+5)
	for name, eml := range map[string]string{
		"no end":                         "Subject: x\r\n",
		"no line end":                    "Subject: x",
		"half a line end":                "Subject: x\r",
		"only LF":                        "Subject: x\n",
		"too many fields":                fields,
		"too many, no line end":          fields + "c: d",
		"too many, half a line end":      fields + "c: d\r",
		"too long":                       lines,
		"too long, no line end":          lines + "c: d",
		"too long, cut in a CRLF":        strings.Repeat("y", message.MaxHeader-len(lines)%98) + lines,
		"too long, cut behind a CR":      "X: " + strings.Repeat("y", message.MaxHeader-4) + "\r\nZ: z\r\n\r\nbody\r\n",
		"too long, cut behind a CRLF":    "X: " + strings.Repeat("y", message.MaxHeader-5) + "\r\nZ: z\r\n\r\nbody\r\n",
		"too long, cut behind a lone CR": "X: " + strings.Repeat("y", message.MaxHeader-4) + "\rZ: z\r\n\r\nbody\r\n",
		"too long, cut behind an LF":     "X: " + strings.Repeat("y", message.MaxHeader-4) + "\nZ: z\n\nbody\n",
	} {
		for _, block := range []int{1 << 10, 64 << 10, 1<<20 - 1} {
			o := desk(t, nil)
			h := gateway.NewInbound(o, gateway.Intake{Observe: true})
			env := &gateway.Envelope{Listener: "test", Role: gateway.RoleInbound, Protocol: "ESMTP", From: path(t, "a@x.example"), Recipients: []gateway.Recipient{{Path: path(t, "311@city.example")}}}
			rest := strings.ReplaceAll(eml, "\r\n", "")
			env.Body = gateway.BodyFacts{Size: int64(len(eml)), BareCR: strings.Contains(rest, "\r"), BareLF: strings.Contains(rest, "\n"), NoFinalCRLF: !strings.HasSuffix(eml, "\r\n")}
			sink, err := h.Spool(context.Background(), env)
			if err != nil {
				t.Fatal(err)
			}
			for p := []byte(eml); len(p) > 0; p = p[min(block, len(p)):] {
				if _, err := sink.Write(p[:min(block, len(p))]); err != nil {
					t.Fatal(err)
				}
			}
			r, err := h.Accept(context.Background(), env, sink)
			sink.Discard()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			id, _ := store.ParseID(r.ID)
			sent := leaves(t, o.Store, id)
			want, _ := io.ReadAll(message.EndWithCRLF(message.Normalize(strings.NewReader(eml))))
			_, got, _ := bytes.Cut(sent, []byte("+0000\r\n")) // our field
			ended := !strings.Contains(name, "too") && string(got) == string(want)+"\r\n"
			if !ended && !bytes.Equal(got, want) {
				t.Errorf("%s, in blocks of %d: %d octets became %d, which end %q", name, block, len(want), len(sent), sent[max(0, len(sent)-30):])
			}
		}
	}
}

// leaves is a message as the relay sends it: the header block, and the body
// behind its transforms.
func leaves(t *testing.T, st store.Store, id store.ID) []byte {
	t.Helper()
	var header []byte
	var m store.Message
	err := st.View(context.Background(), func(r store.Reader) (err error) {
		if m, err = r.Message(id); err == nil {
			header, _, err = r.Header(id, store.AsSent)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	body := strings.TrimPrefix(export(t, st, id, store.AsSent), string(header))
	rest, err := io.ReadAll(message.Apply(strings.NewReader(body), m.Archived.Transforms))
	if err != nil {
		t.Fatal(err)
	}
	return append(header[:len(header):len(header)], rest...)
}

// TestCutHeaderIsAssigned: the same when a person takes it from the exceptions
// list.
func TestCutHeaderIsAssigned(t *testing.T) {
	o := desk(t, func(o *gateway.Options) { o.Logger = slog.New(slog.DiscardHandler) })
	in := gateway.NewInbound(o, gateway.Intake{})
	if _, err := hand(t, in, gateway.RoleInbound, "b@x.example", "From: b@x.example\r\n\r\nhello\r\n", "311@city.example"); err != nil {
		t.Fatal(err)
	}
	for _, before := range []int{3, 4, 5, 6} { // what stands between the first line's end and the cut
		eml := "X: " + strings.Repeat("y", message.MaxHeader-before) + "\r\nZ: z\r\n\r\nbody\r\n"
		r, err := hand(t, in, gateway.RoleInbound, "a@x.example", eml, "311@city.example")
		if err != nil || !strings.HasSuffix(r.Text, "exception unparsable") {
			t.Fatal(r, err)
		}
		id, _ := store.ParseID(r.ID)
		book := gateway.Rulebook{Settings: o.Settings, Names: []string{"test"}, Intakes: map[string]gateway.Intake{"test": {}}}
		if _, err := gateway.Assign(t.Context(), o, book, id, resolver.ByHand{By: "kim", Case: 1}); err != nil {
			t.Fatal(err)
		}
		if sent := leaves(t, o.Store, id); !bytes.HasSuffix(sent, []byte(eml)) || !bytes.HasPrefix(sent, []byte("Received: ")) {
			t.Errorf("cut %d octets behind: %d octets leave, which begin %q and end %q", before, len(sent), sent[:80], sent[len(sent)-30:])
		}
	}
}
