package gateway

import (
	"bytes"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/casegate/casegate/store"
)

// refusalsMax is how many failures of AUTH one connection gets.
const refusalsMax = 3

var (
	errCancelled = Verdict{501, [3]int{5, 7, 0}, "Authentication cancelled"}
	errBase64    = Verdict{501, [3]int{5, 5, 2}, "Not base64"}
	errAuthLine  = Verdict{500, [3]int{5, 5, 6}, "Authentication exchange line is too long"}
	errAuthForm  = Verdict{501, [3]int{5, 5, 2}, "Malformed credentials"}
)

// mechanism runs the exchange of one SASL mechanism. initial is the client's
// initial response, nil if it gave none.
type mechanism func(w *wire, initial []byte) (address string, err error)

func mechanismNamed(name string) mechanism {
	return map[string]mechanism{"PLAIN": (*wire).plain, "LOGIN": (*wire).loginExchange, "EXTERNAL": (*wire).external}[name]
}

// mechanisms are those that the client may use: EXTERNAL if it showed a
// certificate that counts.
func (w *wire) mechanisms() []string {
	if w.opts.Authenticator == nil || w.opts.Auth == AuthOff {
		return nil
	}
	names := []string{"PLAIN", "LOGIN"}
	if len(w.certified()) > 0 {
		names = append(names, "EXTERNAL")
	}
	return names
}

// certified is the e-mail addresses of the client's certificate.
func (w *wire) certified() []string {
	if w.tls == nil {
		return nil
	}
	return w.opts.TLS.verified(w.tls.ConnectionState())
}

// private reports that nobody can listen in.
func (w *wire) private() bool { return w.tls != nil || w.opts.AuthWithoutTLS && w.local() }

// auth answers AUTH (RFC 4954).
func (w *wire) auth(args string) bool {
	name, initial, given := strings.Cut(args, " ")
	name = strings.ToUpper(name)
	offered := w.mechanisms()
	switch {
	case len(offered) == 0:
		w.deny(ReasonCommand, 502, "5.5.1", "AUTH is not offered here")
	case !w.private():
		w.deny(ReasonTLS, 538, "5.7.11", "Encryption required for authentication")
	case w.hello == "" || w.hello == "HELO":
		w.deny(ReasonCommand, 503, "5.5.1", "Send EHLO first")
	case w.login != "":
		w.deny(ReasonCommand, 503, "5.5.1", "Already authenticated")
	case w.busy():
		w.deny(ReasonCommand, 503, "5.5.1", "AUTH not allowed during a mail transaction")
	case !slices.Contains(offered, name):
		w.deny(ReasonCommand, 504, "5.5.4", "Unrecognized authentication mechanism")
	default:
		w.signIn(mechanismNamed(name), strings.TrimSpace(initial), given)
	}
	return true
}

// signIn runs an exchange and answers for it.
func (w *wire) signIn(run mechanism, initial string, given bool) {
	var first []byte
	var err error
	if given {
		first, err = decodeResponse(initial)
	}
	var address string
	if err == nil {
		address, err = run(w, first)
	}
	switch {
	case w.state == stateClosing: // the client has gone
	case err != nil:
		w.notSignedIn(err)
	default:
		w.login, w.sealed = address, w.named
		w.log.Info("signed in", "login", address)
		w.answer(235, "2.7.0", "Authentication successful")
	}
}

func (w *wire) notSignedIn(err error) {
	e := reply(w.log, err)
	if e.Code == 451 {
		e.Code, e.EnhancedCode = 454, [3]int{4, 7, 0}
	}
	w.log.Info("not signed in", "answer", e.Message)
	w.deny(ReasonAuth, e.Code, enhanced(e), e.Message)
	if w.refusals++; w.refusals >= refusalsMax {
		w.hangup(ReasonAuth, 421, "4.7.0", "too many failed logins, closing", true)
	}
}

// ask sends a challenge and reads the response.
func (w *wire) ask(challenge string) ([]byte, error) {
	w.out = append(w.out, "334 "+base64.StdEncoding.EncodeToString([]byte(challenge))+"\r\n"...)
	line, err := w.readLine()
	switch {
	case err == errLongLine:
		return nil, errAuthLine
	case err != nil:
		w.failed(err)
		return nil, err
	}
	text := string(bytes.TrimRight(line, "\r\n"))
	if text == "*" {
		return nil, errCancelled
	}
	if text == "" {
		return []byte{}, nil
	}
	return decodeResponse(text)
}

// decodeResponse reads a response; = is an empty initial one.
func decodeResponse(text string) ([]byte, error) {
	if text == "=" {
		return []byte{}, nil
	}
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || text == "" || strings.ContainsAny(text, "\r\n") {
		return nil, errBase64
	}
	return b, nil
}

// plain is PLAIN (RFC 4616). Nobody may act for another.
func (w *wire) plain(response []byte) (string, error) {
	if response == nil {
		var err error
		if response, err = w.ask(""); err != nil {
			return "", err
		}
	}
	part := strings.Split(string(response), "\x00")
	switch {
	case len(part) != 3 || part[1] == "":
		return "", errAuthForm
	case part[0] != "" && store.Key(part[0]) != store.Key(part[1]):
		return "", errCredentials
	}
	return w.password(part[1], part[2])
}

// loginExchange is LOGIN, which no RFC has but many clients do
// (draft-murchison-sasl-login).
func (w *wire) loginExchange(login []byte) (string, error) {
	var err error
	if login == nil {
		if login, err = w.ask("Username:"); err != nil {
			return "", err
		}
	}
	password, err := w.ask("Password:")
	if err != nil {
		return "", err
	}
	return w.password(string(login), string(password))
}

func (w *wire) password(login, password string) (string, error) {
	if !printable(login) {
		return "", errAuthForm
	}
	return w.opts.Authenticator.Password(w.ctx, w.peer, login, password)
}

// external is EXTERNAL (RFC 4422 appendix A): the agent that the client's
// certificate names, or the one of them whom the response names.
func (w *wire) external(response []byte) (string, error) {
	if response == nil {
		var err error
		if response, err = w.ask(""); err != nil {
			return "", err
		}
	}
	for _, name := range w.certified() {
		if wanted := string(response); wanted != "" && !strings.EqualFold(wanted, name) {
			continue
		}
		address, err := w.opts.Authenticator.Agent(w.ctx, name)
		if err == nil || !errors.Is(err, errCredentials) {
			return address, err
		}
	}
	return "", errCredentials
}

// vouched is the agent whom a trusted proxy has let in; none without a login.
func (w *wire) vouched(login string) (string, error) {
	switch {
	case login == "":
		return "", nil
	case w.opts.Authenticator == nil:
		return "", Verdict{501, [3]int{5, 5, 4}, "LOGIN is not taken here"}
	}
	return w.opts.Authenticator.Agent(w.ctx, login)
}
