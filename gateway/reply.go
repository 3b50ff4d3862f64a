package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"

	"github.com/emersion/go-smtp"

	"github.com/casegate/casegate/store"
)

// Verdict is an answer that somebody meant to give: the only error that may
// become a 5xx. It is found through wrapping. Text goes on the wire as it is,
// so it holds nothing that is private or a stranger's.
type Verdict struct {
	Code     int    // 4xx or 5xx; 421 also closes the connection
	Enhanced [3]int // zero: derived from Code
	Text     string
}

func (v Verdict) Error() string {
	return fmt.Sprintf("%d %d.%d.%d %s", v.Code, v.Enhanced[0], v.Enhanced[1], v.Enhanced[2], v.Text)
}

// textMax keeps a reply line within RFC 5321's 512 octets.
const textMax = 480

// reply turns an error into the answer on the wire; it is the one place that
// does. What nobody meant as an answer is a 451, because a sender who tries
// again costs less than a message lost; the error itself is only logged, under
// an id that the answer names.
func reply(log *slog.Logger, err error) *smtp.SMTPError {
	if v, ok := verdictIn(err); ok {
		return smtpReply(v)
	}
	switch {
	case errors.Is(err, store.ErrFull):
		log.Warn("no room to store a message", "error", err)
		return smtpReply(Verdict{452, [3]int{4, 3, 1}, "No room to store the message, try again later"})
	case errors.Is(err, context.Canceled), errors.Is(err, errDraining):
		return smtpReply(Verdict{451, [3]int{4, 3, 2}, "Shutting down, try again later"})
	}
	id := newID()
	log.Error("session failed", "id", id, "error", err)
	return smtpReply(Verdict{451, [3]int{4, 3, 0}, "Local error, try again later (id " + id + ")"})
}

// verdictIn finds a Verdict that is fit to be an answer.
func verdictIn(err error) (Verdict, bool) {
	var v Verdict
	var p *Verdict
	switch {
	case errors.As(err, &v):
	case errors.As(err, &p) && p != nil:
		v = *p
	}
	if v.Code < 400 || v.Code > 599 {
		return Verdict{}, false
	}
	if v.Enhanced[0] != v.Code/100 {
		v.Enhanced = [3]int{v.Code / 100, 0, 0}
	}
	return v, true
}

func smtpReply(v Verdict) *smtp.SMTPError {
	return &smtp.SMTPError{Code: v.Code, EnhancedCode: smtp.EnhancedCode(v.Enhanced), Message: plainText(v.Text, textMax)}
}

// accepted answers for a message that is on stable storage.
func accepted(r Receipt) *smtp.SMTPError {
	text := r.Text
	if text == "" {
		text = "accepted " + r.ID
	}
	return smtpReply(Verdict{250, [3]int{2, 0, 0}, text})
}

// plainText is s in printable ASCII on one line, at most limit bytes.
func plainText(s string, limit int) string {
	b := make([]byte, 0, min(len(s), limit))
	for _, r := range s {
		if len(b) == limit {
			break
		}
		if r < ' ' || r > '~' {
			r = '?'
		}
		b = append(b, byte(r))
	}
	return string(b)
}

// newID is an opaque id that joins a reply to its log line.
func newID() string { return rand.Text()[:12] }
