package console

import (
	"context"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"
)

// UserHeader is where the command line says who types.
const UserHeader = "Casegate-User"

// actor is the key of a request's context under which guard leaves who acts.
type actor struct{}

// by is who acts.
func by(ctx context.Context) string {
	who, _ := ctx.Value(actor{}).(string)
	return who
}

// saidBy is who the caller says he is, else cli: a name that can be printed,
// on one line.
func saidBy(r *http.Request) string {
	name := strings.TrimSpace(r.Header.Get(UserHeader))
	odd := func(c rune) bool { return !unicode.IsPrint(c) || c == utf8.RuneError }
	if name == "" || len(name) > 100 || strings.ContainsFunc(name, odd) {
		return "cli"
	}
	return name
}
