package relay

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Auth is how we sign in at a next hop: with a password, or with a token that
// an OAuth server gives us for our own secret (RFC 6749 §4.4). Secrets are in
// files, read when they are needed.
type Auth struct {
	User         string
	PasswordFile string

	TokenURL   string // https
	ClientID   string
	SecretFile string
	Scope      string
}

// credentials are an Auth at work.
type credentials struct {
	Auth
	token *tokens // nil: there is a password
}

func newCredentials(a Auth) (*credentials, error) {
	c := &credentials{Auth: a}
	switch {
	case a.User == "" || !sendable(a.User):
		return nil, errors.New("signing in needs a user")
	case (a.PasswordFile == "") == (a.TokenURL == ""):
		return nil, errors.New("signing in needs a password file or a token URL, and not both")
	case a.PasswordFile != "":
		return c, nil
	}
	var err error
	c.token, err = newTokens(a)
	return c, err
}

// readSecret reads the first line of a file.
func readSecret(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading a secret: %w", err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" || strings.ContainsRune(line, 0) {
		return "", fmt.Errorf("reading a secret: %s has no first line to use", file)
	}
	return line, nil
}

// errSignIn: the next hop doesn't let us in.
var errSignIn = errors.New("signing in")

// refused is the error of a next hop that does not let us sign in, now or later.
type refused struct{ error }

func (r refused) Unwrap() error { return r.error }

// mechanisms that we know, the better first (RFC 7628, XOAUTH2, RFC 4616, LOGIN).
func (a *credentials) mechanism(offered []string) (string, error) {
	known := []string{"PLAIN", "LOGIN"}
	if a.token != nil {
		known = []string{"OAUTHBEARER", "XOAUTH2"}
	}
	for _, m := range known {
		if slices.Contains(offered, m) {
			return m, nil
		}
	}
	return "", fmt.Errorf("%w: the next hop offers none of %s", errSignIn, strings.Join(known, ", "))
}

// signIn authenticates the session (RFC 4954). A token that is refused (535, or
// what a server says instead) may have been withdrawn: a fresh one is tried,
// once.
func (c *conn) signIn(ctx context.Context, a *credentials) error {
	if a == nil {
		return nil
	}
	if c.tls == nil {
		return refused{fmt.Errorf("%w: not without TLS", errSignIn)}
	}
	mech, err := a.mechanism(c.ext.auth)
	if err != nil {
		return refused{err}
	}
	secret, err := a.secret(ctx, "")
	if err != nil {
		return fmt.Errorf("%w: %w", errSignIn, err)
	}
	rep, err := c.authenticate(mech, a.User, secret)
	if err == nil && rep.code >= 400 && rep.code != 421 && a.token != nil {
		if secret, err = a.secret(ctx, secret); err != nil {
			return fmt.Errorf("%w: %w", errSignIn, err)
		}
		rep, err = c.authenticate(mech, a.User, secret)
	}
	switch {
	case err != nil:
		return fmt.Errorf("%w with %s: %w", errSignIn, mech, err)
	case rep.code/100 == 5:
		return refused{fmt.Errorf("%w with %s: %s", errSignIn, mech, rep)}
	case rep.code != 235:
		return fmt.Errorf("%w with %s: %s", errSignIn, mech, rep)
	}
	return nil
}

// secret is the password, or a token other than the one that was refused.
func (a *credentials) secret(ctx context.Context, refused string) (string, error) {
	if a.token != nil {
		return a.token.get(ctx, refused)
	}
	return readSecret(a.PasswordFile)
}

// authenticate runs one exchange. It ends with a reply that is no challenge.
func (c *conn) authenticate(mech, user, secret string) (reply, error) {
	answers := map[string][]string{
		"PLAIN":       {"\x00" + user + "\x00" + secret},
		"LOGIN":       {"", user, secret},
		"XOAUTH2":     {"user=" + user + "\x01auth=Bearer " + secret + "\x01\x01", ""},
		"OAUTHBEARER": {"n,a=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",\x01auth=Bearer " + secret + "\x01\x01", "\x01"},
	}[mech]
	line := "AUTH " + mech
	if answers[0] != "" {
		line += " " + base64.StdEncoding.EncodeToString([]byte(answers[0]))
	}
	for n := 0; ; {
		c.out = append(c.out[:0], line+"\r\n"...)
		err := c.flush(c.timeouts.Mail)
		clear(c.out)
		if err != nil {
			return reply{}, err
		}
		rep, err := c.reply(c.timeouts.Mail)
		if err != nil || rep.code != 334 {
			return rep, err
		}
		if n++; n >= len(answers) {
			return reply{}, fmt.Errorf("%w: a challenge too many", errReply)
		}
		line = base64.StdEncoding.EncodeToString([]byte(answers[n]))
	}
}
