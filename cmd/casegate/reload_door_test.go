package main

import (
	"errors"
	"net"
	"testing"
	"time"
)

// TestDoor: a turn ends without a connection refused; those of earlier turns
// count, and are waited for.
func TestDoor(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := newMetrics()
	d := &door{socket: ln, counts: m.door("x")}
	accept := func(turn *turn) chan net.Conn {
		conns := make(chan net.Conn, 10)
		go func() {
			defer close(turn.served)
			for {
				c, err := turn.Accept()
				if err != nil {
					if !errors.Is(err, net.ErrClosed) {
						t.Errorf("accept: %v", err)
					}
					return
				}
				conns <- c
			}
		}()
		return conns
	}
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	first := d.turn(1)
	conns := accept(first)
	dial()
	one := <-conns
	first.end()
	first.Close() // its listener is shut down: the socket stays
	select {
	case <-first.empty:
		t.Error("a turn is empty with a connection left")
	default:
	}

	waiting := dial() // nobody accepts
	second := d.turn(1)
	later := accept(second)
	two := <-later
	if two.RemoteAddr().String() != waiting.LocalAddr().String() {
		t.Error("who waited was not let in")
	}
	one.Close()
	one.Close() // counts once
	select {
	case <-first.empty:
	case <-time.After(5 * time.Second):
		t.Error("the first turn does not end")
	}
	dial()
	three := <-later
	two.Close()
	three.Close()
	second.end()
	<-second.empty
	last := d.turn(1)
	last.Close()
	if _, err := net.DialTimeout("tcp", ln.Addr().String(), time.Second); err == nil {
		t.Error("the socket is open after the last turn")
	}
}
