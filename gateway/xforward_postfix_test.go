package gateway

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// filterMainCF is a Postfix that hands all its mail to a port.
const filterMainCF = `smtpd_relay_restrictions = check_client_access static:OK, reject
smtpd_authorized_xclient_hosts = 127.0.0.0/8
content_filter = smtp:[127.0.0.1]:%s
smtp_send_xforward_command = yes
smtp_tls_security_level = encrypt
`

// TestXForwardFromPostfix: a Postfix in front of us, over TLS, tells us of the
// client that gave it the mail.
func TestXForwardFromPostfix(t *testing.T) {
	h, p := &testHandler{}, testTLS(t)
	l := listen(t, h, func(o *ListenerOptions) {
		o.XForward, o.TLSMode, o.TLS, o.RequireTLS = true, TLSStart, p.server, true
	})
	mta, address := testbed.NewPostfix(t), testbed.Free(t, 1)[0]
	mta.Start(address, map[string]string{
		"main.cf":   fmt.Sprintf(filterMainCF, testbed.Port(l.Addr().String())),
		"master.cf": address + " inet n - n - - smtpd\n",
	})
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	c := &client{t, conn, bufio.NewReader(conn)}
	c.expect("220")
	c.do("XCLIENT NAME=spike.test ADDR=192.0.2.77 PORT=4711", "220")
	c.do("EHLO laptop.test", "250")
	c.do("MAIL FROM:<a@b.test>", "250")
	c.do("RCPT TO:<c@d.test>", "250")
	c.do("DATA", "354")
	c.do("Subject: hi\r\n\r\nhi\r\n.", "250")
	testbed.Until(t, "Postfix has handed it on", func() bool { return len(h.got()) > 0 })
	env := h.got()[0].env
	got := env.Client
	if got.Ident == "" || got.Source == "" {
		t.Errorf("no queue id, or no source: %+v", got)
	}
	got.Ident, got.Source = "", "" // the source is by Postfix's own networks
	want := Client{Name: "spike.test", Addr: netip.MustParseAddr("192.0.2.77"), Port: 4711, Protocol: "ESMTP", Helo: "laptop.test"}
	if got != want || env.Protocol != "ESMTPS" || env.Helo != "mx.example.net" {
		t.Errorf("%+v\nby %s from %s", got, env.Protocol, env.Helo)
	}
}
