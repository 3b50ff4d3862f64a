package gateway_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/casegate/casegate/gateway"
	"github.com/casegate/casegate/store"
)

// Of a message signed or encrypted end to end only the outer header is
// rewritten: every byte of the body, and the fields that describe it, leave as
// they came.
func TestSignedAndEncryptedBodies(t *testing.T) {
	for name, part := range map[string]string{
		"multipart/signed": "Content-Type: multipart/signed; micalg=pgp-sha256;\r\n protocol=\"application/pgp-signature\"; boundary=b\r\n\r\n" +
			"preamble \r\n--b\r\nContent-Type: text/plain; protected-headers=\"v1\"\r\nSubject: inner\r\nTo: 311@city.example\r\n\r\ntrailing blanks  \t\r\n.\r\n..\r\n\xff\x00\r\n\r\n--b\r\n" +
			"Content-Type: application/pgp-signature\r\n\r\n-----BEGIN PGP SIGNATURE-----\r\n=abcd\r\n-----END PGP SIGNATURE-----\r\n\r\n--b--\r\nepilogue\r\n",
		"multipart/encrypted": "Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\";\r\n\tboundary=\"e\"\r\n\r\n--e\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n\r\n--e\r\nContent-Type: application/octet-stream\r\n\r\n-----BEGIN PGP MESSAGE-----\r\n\r\nhQ==\r\n-----END PGP MESSAGE-----\r\n\r\n--e--\r\n",
		"application/pkcs7-mime": "Content-Type: application/pkcs7-mime; smime-type=enveloped-data;\r\n name=smime.p7m\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=smime.p7m\r\n\r\n" +
			strings.Repeat("MIAGCSqGSIb3DQEHA6CAMIACAQAxggE=\r\n", 2000),
	} {
		t.Run(name, func(t *testing.T) {
			o, out, head := opened(t, func(o *gateway.Options) { o.Settings.SubjectTag = true }, "Ann <ann@x.example>")
			eml := head + "MIME-Version: 1.0\r\nTo: Ann <ann@x.example>, 311@city.example\r\nCc: Ron <ron@x.example>\r\n" + part
			k := keptOf(t, o, submit(t, out, eml, "ann@x.example", "ron@x.example"))
			_, body, _ := strings.Cut(part, "\r\n\r\n")
			fields := strings.TrimSuffix(part, body)
			if !strings.HasSuffix(k.sent, "\r\n\r\n"+body) || !strings.Contains(k.sent, "\r\n"+strings.TrimSuffix(fields, "\r\n")) {
				t.Errorf("the body or its description changed:\n%.2000s", k.sent)
			}
			if len(k.message.Archived.Transforms) > 0 || k.received != eml {
				t.Errorf("transforms %q", k.message.Archived.Transforms)
			}
			if got := fieldOf(k.sent, "To"); !slices.Equal(got, []string{"Ann <ann@x.example>"}) {
				t.Errorf("the outer header is not rewritten: %q", got)
			}
			sound(t, o)
		})
	}
}

// on_signed: a DKIM signature that covers what is rewritten goes, and the record
// says which; with hold the message waits as well.
func TestOnSigned(t *testing.T) {
	for _, c := range []struct {
		onSigned, covers string
		stays            bool
		state            store.DeliveryState
	}{
		{"strip", "from:to:cc", false, store.Queued},
		{"hold", "from:to:cc", false, store.Held},
		{"hold", "from:subject", true, store.Queued},
	} {
		o, out, head := opened(t, func(o *gateway.Options) { o.Settings.OnSigned = c.onSigned }, "ann@x.example")
		sig := "DKIM-Signature: v=1; a=rsa-sha256; d=crm.city.example;\r\n\th=" + c.covers + "; bh=x; b=y\r\n"
		k := keptOf(t, o, submit(t, out, sig+head+"To: ann@x.example\r\nCc: 311@city.example\r\n\r\nhello\r\n", "ann@x.example"))
		name := fmt.Sprintf("%s, %s", c.onSigned, c.covers)
		if strings.Contains(k.sent, "DKIM-Signature") != c.stays || k.deliveries[0].State != c.state {
			t.Errorf("%s: %s: %s", name, k.deliveries[0].State, k.sent)
		}
		if k.says("O13: the DKIM-Signature of crm.city.example covers cc, which is rewritten: removed") == c.stays {
			t.Errorf("%s: %q", name, k.message.Decision.Reasons)
		}
		if slices.Contains(k.message.Flags, "held") != (c.state == store.Held) {
			t.Errorf("%s: flags %q", name, k.message.Flags)
		}
		sound(t, o)
	}
}
