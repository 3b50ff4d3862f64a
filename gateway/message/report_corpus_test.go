package message_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway/message"
)

// What we reach with the reports of the corpus; less is a step back. What is
// missing isn't there: cut off, told in free text, or in JSON.
const (
	minReturned   = 278 // of 307 with the header of the returned message
	minRecipients = 233 // with recipients
	minEither     = 289
	minStandard   = 181 // DSN, MDN or ARF
)

func TestReportCorpus(t *testing.T) {
	mails, returned, recipients, either, standard := 0, 0, 0, 0, 0
	for _, part := range []string{"sisimai", "flanker/bounce", "flanker/complaints"} {
		for name, mail := range corpusFiles(t, part) {
			if !strings.HasSuffix(name, ".eml") {
				continue
			}
			mails++
			header, body := split(mail, 4096)
			h := message.Parse(header)
			r, err := message.ReadReport(h, bytes.NewReader(body))
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			checkReport(t, h, body)
			returned += count(r.Returned != nil)
			recipients += count(len(r.Recipients) > 0)
			either += count(r.Returned != nil || len(r.Recipients) > 0)
			standard += count(r.Kind != "")
			checkWritten(t, name, mail, r)
		}
	}
	t.Logf("%d reports: %d with a returned header, %d with recipients, %d with either, %d standard ones", mails, returned, recipients, either, standard)
	if returned < minReturned || recipients < minRecipients || either < minEither || standard < minStandard {
		t.Errorf("fewer than %d, %d, %d, %d", minReturned, minRecipients, minEither, minStandard)
	}
}

// checkWritten: none of these mails encodes an address, so each stands there.
func checkWritten(t *testing.T, name string, mail []byte, r message.Report) {
	t.Helper()
	for _, one := range r.Recipients {
		if !bytes.Contains(mail, []byte(one.FinalRecipient)) || !bytes.Contains(mail, []byte(one.OriginalRecipient)) {
			t.Errorf("%s: %+v isn't written there", name, one)
		}
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}
