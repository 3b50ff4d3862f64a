package gateway

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
)

// The dialogues in testdata/dialogues are played over TCP against us and, but
// for those that say "# ours", against bare go-smtp, which must give the same
// replies. A dialogue is text:
//
//	# lmtp           a comment; at the top, words set the scene: ours, and those of scenes
//	C: NOOP          the client sends the line and CRLF
//	C6 AUTH X "a"    the same, with a Go string at its end as base64
//	C- "raw\x00"     the client sends exactly this, a Go string
//	C# 1001          the client sends so many x
//	S: 250 2.0.0 ok  the server answers this line; a final * stands for any rest
//	S!               the server closes the connection
//	TLS              client and server shake hands
//
// Lines of the client up to the next S, or TLS, are sent in one write.

// dialogueSize is SIZE in the dialogues.
const dialogueSize = 1000

func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("../testdata/dialogues/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogues", err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := string(raw)
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) { playDialogue(t, ourServer(t, text), text) })
		if !scene(text, "ours") {
			t.Run(name+"/bare", func(t *testing.T) { playDialogue(t, bareServer(t, text), text) })
		}
	}
}

// scene reports whether a comment at the top has the word.
func scene(text, word string) bool {
	for line := range strings.Lines(text) {
		comment, ok := strings.CutPrefix(line, "#")
		if !ok {
			return false
		}
		for _, w := range strings.Fields(comment) {
			if strings.Trim(w, ":,.") == word {
				return true
			}
		}
	}
	return false
}

func ourServer(t *testing.T, text string) string {
	h := &testHandler{rcpt: func(to Recipient) error {
		if to.Path.Local == "nobody" {
			return Verdict{550, [3]int{5, 1, 1}, "No such mailbox"}
		}
		return nil
	}}
	l := listen(t, h, func(o *ListenerOptions) {
		o.MaxMessage, o.MaxRecipients = dialogueSize, 3
		for word, set := range scenes {
			if scene(text, word) {
				set(t, o)
			}
		}
	})
	return l.Addr().String()
}

// scenes are what the words at the top of a dialogue change.
var scenes = map[string]func(*testing.T, *ListenerOptions){
	"lmtp":         func(_ *testing.T, o *ListenerOptions) { o.Protocol = "lmtp" },
	"normalize":    func(_ *testing.T, o *ListenerOptions) { o.BareNewline = NewlineNormalize },
	"starttls":     func(t *testing.T, o *ListenerOptions) { o.TLSMode, o.TLS = TLSStart, testTLS(t).server },
	"implicit":     func(t *testing.T, o *ListenerOptions) { o.TLSMode, o.TLS = TLSImplicit, testTLS(t).server },
	"require_tls":  func(_ *testing.T, o *ListenerOptions) { o.RequireTLS = true },
	"auth":         func(_ *testing.T, o *ListenerOptions) { o.Authenticator = desk },
	"auth_clear":   func(_ *testing.T, o *ListenerOptions) { o.Authenticator, o.AuthWithoutTLS = desk, true },
	"auth_require": func(_ *testing.T, o *ListenerOptions) { o.Auth = AuthRequire },
	"xforward":     func(_ *testing.T, o *ListenerOptions) { o.XForward = true },
	"xclient":      func(_ *testing.T, o *ListenerOptions) { o.XClient = true },
	"proxy":        func(_ *testing.T, o *ListenerOptions) { o.ProxyProtocol = true },
}

// bareSession answers as our testHandler does.
type bareSession struct{}

func (bareSession) Reset()                               {}
func (bareSession) Logout() error                        { return nil }
func (bareSession) Mail(string, *smtp.MailOptions) error { return nil }
func (bareSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, "nobody@") {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox"}
	}
	return nil
}

func (bareSession) Data(r io.Reader) error {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "accepted 0192 case 7"}
}

func bareServer(t *testing.T, text string) string {
	s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return bareSession{}, nil }))
	s.Domain, s.LMTP, s.MaxMessageBytes, s.MaxRecipients = "gw.test", scene(text, "lmtp"), dialogueSize, 3
	s.EnableSMTPUTF8, s.EnableDSN, s.ErrorLog = true, true, libraryLog{quiet}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	return ln.Addr().String()
}

// player is the client of a dialogue.
type player struct {
	t       *testing.T
	conn    net.Conn
	r       *bufio.Reader
	pending strings.Builder
}

func playDialogue(t *testing.T, addr, text string) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	p := &player{t: t, conn: c, r: bufio.NewReader(c)}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSuffix(line, "\n")
		if err := p.play(line); err != nil {
			t.Fatalf("line %d: %v", number, err)
		}
	}
}

func (p *player) flush() {
	io.WriteString(p.conn, p.pending.String())
	p.pending.Reset()
}

func (p *player) play(line string) error {
	kind, arg := line[:min(2, len(line))], strings.TrimPrefix(line[min(2, len(line)):], " ")
	if strings.HasPrefix(kind, "#") || line == "" {
		return nil
	}
	if line == "TLS" {
		p.flush()
		conn := tls.Client(p.conn, testTLS(p.t).client())
		p.conn, p.r = conn, bufio.NewReader(conn)
		return conn.Handshake()
	}
	if kind[0] == 'S' {
		p.flush()
		return p.hear(kind, arg)
	}
	text, err := clientLine(kind, arg)
	p.pending.WriteString(text)
	return err
}

// clientLine is what a line of the client sends.
func clientLine(kind, arg string) (string, error) {
	switch kind {
	case "C:":
		return arg + "\r\n", nil
	case "C-":
		return strconv.Unquote(arg)
	case "C6":
		quote := strings.IndexByte(arg, '"')
		raw, err := strconv.Unquote(arg[max(quote, 0):])
		return arg[:max(quote, 0)] + base64.StdEncoding.EncodeToString([]byte(raw)) + "\r\n", err
	case "C#":
		n, err := strconv.Atoi(arg)
		return strings.Repeat("x", n), err
	}
	return "", fmt.Errorf("unknown line %q %q", kind, arg)
}

func (p *player) hear(kind, arg string) error {
	switch kind {
	case "S:":
		got, err := p.r.ReadString('\n')
		want, open := strings.CutSuffix(arg, "*")
		if err != nil || got != want+"\r\n" && !(open && strings.HasPrefix(got, want)) {
			return fmt.Errorf("got %q, %v; want %q", got, err, arg)
		}
	case "S!":
		rest, err := io.ReadAll(p.r)
		if len(rest) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
			return fmt.Errorf("got %q, %v; want the connection closed", rest, err)
		}
	default:
		return fmt.Errorf("unknown line %q", kind)
	}
	return nil
}
