package main

import (
	"strings"
	"testing"
)

// TestListenerMistakes: what a listener needs for TLS, sign-in and proxies, and
// what it must not have. The keys are those of a listener that is otherwise good.
func TestListenerMistakes(t *testing.T) {
	const inbound, outbound = "role: inbound, address: 127.0.0.1:2525, peers: [127.0.0.1]", "role: outbound, address: 127.0.0.1:2525, peers: [127.0.0.1]"
	const network = "role: inbound, address: 192.0.2.1:25, peers: [192.0.2.2]"
	for _, x := range []struct{ keys, want string }{
		{inbound + ", tls: starttls, tls_cert: c, tls_key: k, client_ca: a, require_tls: true, auth: require", ""},
		{inbound + ", auth: require, auth_without_tls: true", ""},
		{inbound + ", proxy_protocol: true", ""},
		{inbound + ", trust: [xforward, authres, control_headers]", ""},
		{inbound + ", trust: [xclient, xforward]", ""},
		{outbound + ", trust: [xforward]", ""},
		{outbound + ", trust: [xclient], auth: require, auth_without_tls: true", ""},
		{outbound + ", proxy_protocol: true, auth: require, tls: implicit, tls_cert: c, tls_key: k", ""},
		{inbound + ", tls: ssl", `tls: "ssl" is not one of its values / write none, starttls or implicit`},
		{inbound + ", tls: implicit, tls_key: k", `tls_cert: missing: TLS needs a certificate / write tls_cert: and a PEM file`},
		{inbound + ", tls: starttls, tls_cert: c", `tls_key: missing: TLS needs a private key / write tls_key: and a PEM file`},
		{inbound + ", tls_cert: c", `tls_cert: no use without TLS / write tls: starttls or tls: implicit, or remove it`},
		{inbound + ", client_ca: c", `client_ca: no use without TLS / write tls: starttls or tls: implicit, or remove it`},
		{inbound + ", require_tls: true", `require_tls: TLS is required but not offered / write tls: starttls, and tls_cert and tls_key`},
		{inbound + ", auth: maybe", `auth: "maybe" is not one of its values / write offer, require or off`},
		{inbound + ", auth: require", `auth: nobody could sign in: that takes TLS / set tls, tls_cert and tls_key; on loopback auth_without_tls: true will do`},
		{network + ", auth_without_tls: true", `auth_without_tls: passwords for 192.0.2.1:25 would cross a network in the clear / remove it and set tls, or listen on 127.0.0.1`},
		{inbound + ", proxy_protocol: true, trust: [xforward]", `trust: the clients of a proxy would be believed / remove it, or proxy_protocol`},
		{inbound + ", proxy_protocol: true, trusted_form: true", `proxy_protocol: the clients of a proxy would be believed / remove authres, control_headers and trusted_form, or what makes the peers proxies`},
		{inbound + ", trust: [xclient, control_headers]", `trust: the clients of a proxy would be believed / remove authres, control_headers and trusted_form, or what makes the peers proxies`},
		{outbound + ", proxy_protocol: true", `proxy_protocol: outbound listener "one" would relay mail for every client of the proxy / write auth: require`},
		{outbound + ", trust: [xclient]", `trust: outbound listener "one" would relay mail for every client of the proxy / write auth: require`},
		{"role: inbound, address: 192.0.2.1:25, proxy_protocol: true", `proxy_protocol: anyone could say for whom he connects / set peers to the proxies`},
		{"role: inbound, address: 192.0.2.1:25, trust: [xforward]", `trust: listener "one" would believe everyone / set peers to the machines whose words count`},
	} {
		text := "listeners:\n  - {name: one, protocol: smtp, " + x.keys + "}\n"
		_, err := parseConfig("c.yaml", []byte(text), nil)
		if x.want == "" {
			if err != nil {
				t.Errorf("%s: %v", x.keys, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%s: taken", x.keys)
			continue
		}
		_, got, _ := strings.Cut(told(t, err), "listeners[0].")
		if got != x.want {
			t.Errorf("%s:\ngot  %s\nwant %s", x.keys, got, x.want)
		}
	}
}
