package gateway

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/casegate/casegate/gateway/testbed"
)

// proxyV2Header is a header of version 2.
func proxyV2Header(verCmd, family byte, addresses []byte) string {
	b := append([]byte(nil), proxyV2...)
	b = append(b, verCmd, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(addresses)))
	return string(append(b, addresses...))
}

func v4Block(client string, port uint16) []byte {
	a := netip.MustParseAddr(client).As4()
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append(a[:], 192, 0, 2, 1), port), 25)
}

func v6Block(client string, port uint16) []byte {
	a := netip.MustParseAddr(client).As16()
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(append(a[:], a[:]...), port), 25)
}

var proxyHeaders = []struct {
	name, header, client string // client is empty for a bad header, - for none
}{
	{"v1", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n", "192.0.2.7:4711"},
	{"v1 IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 25\r\n", "[2001:db8::7]:4711"},
	{"v1 longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{"v1 unknown", "PROXY UNKNOWN\r\n", "-"},
	{"v1 unknown with words", "PROXY UNKNOWN ffff:f...f 1 2\r\n", "-"},
	{"v1 mapped", "PROXY TCP6 ::ffff:192.0.2.7 2001:db8::1 4711 25\r\n", "192.0.2.7:4711"},
	{"v1 wrong family", "PROXY TCP4 2001:db8::7 192.0.2.1 4711 25\r\n", ""},
	{"v1 zone", "PROXY TCP6 fe80::1%eth0 fe80::2 4711 25\r\n", ""},
	{"v1 port", "PROXY TCP4 192.0.2.7 192.0.2.1 65536 25\r\n", ""},
	{"v1 port with zeros", "PROXY TCP4 192.0.2.7 192.0.2.1 025 25\r\n", ""},
	{"v1 our port", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 x\r\n", ""},
	{"v1 short", "PROXY TCP4 192.0.2.7\r\n", ""},
	{"v1 two spaces", "PROXY TCP4  192.0.2.7 192.0.2.1 4711 25\r\n", ""},
	{"v1 bare LF", "PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\n", ""},
	{"v1 UDP", "PROXY UDP4 192.0.2.7 192.0.2.1 4711 25\r\n", ""},
	{"v1 endless", "PROXY UNKNOWN " + strings.Repeat("x", 200) + "\r\n", ""},
	{"v1 small", "proxy tcp4 192.0.2.7 192.0.2.1 4711 25\r\n", ""},
	{"v2", proxyV2Header(0x21, 0x11, v4Block("192.0.2.7", 4711)), "192.0.2.7:4711"},
	{"v2 with TLVs", proxyV2Header(0x21, 0x11, append(v4Block("192.0.2.7", 4711), 4, 0, 1, 0)), "192.0.2.7:4711"},
	{"v2 IPv6", proxyV2Header(0x21, 0x21, v6Block("2001:db8::7", 4711)), "[2001:db8::7]:4711"},
	{"v2 UDP", proxyV2Header(0x21, 0x12, v4Block("192.0.2.7", 4711)), "192.0.2.7:4711"},
	{"v2 UNIX", proxyV2Header(0x21, 0x31, make([]byte, 216)), "-"},
	{"v2 unspecified", proxyV2Header(0x21, 0, nil), "-"},
	{"v2 local", proxyV2Header(0x20, 0x11, v4Block("192.0.2.7", 4711)), "-"},
	{"v2 short", proxyV2Header(0x21, 0x11, v4Block("192.0.2.7", 4711)[:11]), ""},
	{"v2 command", proxyV2Header(0x22, 0x11, v4Block("192.0.2.7", 4711)), ""},
	{"v2 version", proxyV2Header(0x31, 0x11, v4Block("192.0.2.7", 4711)), ""},
	{"v2 family", proxyV2Header(0x21, 0x41, v4Block("192.0.2.7", 4711)), ""},
	{"v2 too long", proxyV2Header(0x21, 0x11, make([]byte, proxyV2Max+1)), ""},
	{"SMTP", "EHLO client.test\r\n", ""},
	{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00", ""},
	{"half", "PROXY TCP4 192.0.2.7 19", ""},
}

// TestReadProxy: each header is read to its last byte, and no further.
func TestReadProxy(t *testing.T) {
	for _, x := range proxyHeaders {
		r := strings.NewReader(x.header + "EHLO behind.test\r\n")
		if x.name == "half" {
			r = strings.NewReader(x.header)
		}
		got, err := readProxy(r)
		want := map[string]string{"-": "invalid AddrPort"}[x.client]
		if want == "" {
			want = x.client
		}
		switch {
		case (err == nil) != (x.client != ""):
			t.Errorf("%s: %v", x.name, err)
		case err == nil && (got.String() != want || r.Len() != len("EHLO behind.test\r\n")):
			t.Errorf("%s: %v, %d bytes left", x.name, got, r.Len())
		}
	}
}

// FuzzProxy: no header makes readProxy panic, or read beyond itself.
func FuzzProxy(f *testing.F) {
	for _, x := range proxyHeaders {
		f.Add([]byte(x.header))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := bytes.NewReader(raw)
		client, err := readProxy(r)
		used := len(raw) - r.Len()
		if err != nil {
			return
		}
		if bytes.HasPrefix(raw, proxyV1) && !bytes.HasSuffix(raw[:used], []byte("\r\n")) || used > len(proxyV2)+4+proxyV2Max {
			t.Errorf("%d bytes used of %q", used, raw)
		}
		if client.IsValid() && (client.Addr().Zone() != "" || client.Addr().Is4In6()) {
			t.Errorf("client %v", client)
		}
	})
}

// TestProxyFacts: the client that the header names is the envelope's peer, and
// its own share of connections is what counts.
func TestProxyFacts(t *testing.T) {
	h := &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.ProxyProtocol, o.MaxPerPeer = true, 2 })
	via := func(header string) *client {
		c := dial(t, l)
		c.send(header)
		return c
	}
	seven := "PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n"
	c := via(seven)
	c.expect("220")
	c.do("EHLO client.test", "250")
	c.begin()
	c.do("hi\r\n.", "250")
	if env := h.got()[0].env; env.Peer != netip.MustParseAddr("192.0.2.7") || env.PeerName != "192.0.2.7:4711" || !env.PeerNamed {
		t.Errorf("peer %v, %q", env.Peer, env.PeerName)
	}
	via(seven).expect("220")
	third := via(seven)
	third.expect("421 4.7.0 Too many connections from your address")
	third.gone()
	via(proxyV2Header(0x21, 0x11, v4Block("192.0.2.8", 1))).expect("220")
	for range 2 { // the proxy's own, as health checks are
		c := via("PROXY UNKNOWN\r\n")
		c.expect("220")
		c.do("EHLO check.test", "250")
		c.begin()
		c.do("hi\r\n.", "250")
	}
	if env := h.got()[1].env; !env.Peer.IsLoopback() || env.PeerNamed {
		t.Errorf("peer %v", env.Peer)
	}
	c.do("QUIT", "221")
	c.gone()
	testbed.Until(t, "the place of the session that is gone is free", func() bool {
		got, _ := via(seven).reply()
		return strings.HasPrefix(got, "220")
	})
}

// TestProxyIsAPeer: the header is taken from listed proxies only, and the client
// it names need not be listed.
func TestProxyIsAPeer(t *testing.T) {
	l := listen(t, &testHandler{}, func(o *ListenerOptions) {
		o.ProxyProtocol, o.Peers = true, []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	})
	c := dial(t, l)
	c.expect("554 5.7.1 ")
	c.gone()
	conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write([]byte("PROXY TCP4 192.0.2.7 192.0.2.1 4711 25\r\n"))
	buf := make([]byte, 3)
	if conn.Read(buf); string(buf) != "220" {
		t.Errorf("said %q", buf)
	}
}

func TestProxyDeadline(t *testing.T) {
	short := 60 * time.Millisecond
	l := listen(t, &testHandler{}, func(o *ListenerOptions) { o.ProxyProtocol, o.HandshakeTimeout = true, short })
	start := time.Now() // the deadline counts from the accept, which may be over when dial returns
	c := dial(t, l)
	trickle(c, "P", 30)
	c.gone()
	if d := time.Since(start); d < short {
		t.Errorf("dropped after %v", d)
	}
	start = time.Now()
	conn := dial(t, l)
	conn.send("PROXY TCP4 192.0.2")
	conn.gone()
	if d := time.Since(start); d < short || d > 20*short {
		t.Errorf("dropped after %v", d)
	}
}

// TestProxyThenTLS: the header is in the clear, TLS begins with the next byte.
func TestProxyThenTLS(t *testing.T) {
	p, h := testTLS(t), &testHandler{}
	l := listen(t, h, func(o *ListenerOptions) { o.ProxyProtocol, o.TLSMode, o.TLS = true, TLSImplicit, p.server })
	c := dial(t, l)
	c.send(proxyV2Header(0x21, 0x21, v6Block("2001:db8::7", 4711)))
	c = c.shakeHands(p.client())
	c.expect("220")
	c.do("EHLO client.test", "250")
	c.begin()
	c.do("hi\r\n.", "250")
	if env := h.got()[0].env; env.Peer != netip.MustParseAddr("2001:db8::7") || env.Protocol != "ESMTPS" {
		t.Errorf("%+v", env)
	}
}
