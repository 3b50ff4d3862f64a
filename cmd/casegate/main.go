// Command casegate is a case-aware mail gateway: it puts citizens' mail on
// cases, and the desk's answers on their way.
//
//	bytes -> session -> message -> decision -> one transaction -> outbox -> next hop
//
// This package parses, wires and waits. Config is known here alone; every room
// gets a small options struct. Whatever the command line asks, it asks the API:
// over the socket of a running daemon, or of the same handler in this process.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker: -X main.version=...
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	code := newProgram().run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}
