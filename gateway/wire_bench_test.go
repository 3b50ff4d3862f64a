package gateway

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/emersion/go-smtp"
)

// dropHandler throws every message away.
type dropHandler struct{ bytes atomic.Int64 }

type dropSink struct{ h *dropHandler }

func (s dropSink) Write(p []byte) (int, error) { s.h.bytes.Add(int64(len(p))); return len(p), nil }
func (dropSink) Discard()                      {}

func (*dropHandler) Mail(context.Context, *Envelope) error            { return nil }
func (*dropHandler) Rcpt(context.Context, *Envelope, Recipient) error { return nil }
func (h *dropHandler) Spool(context.Context, *Envelope) (Sink, error) { return dropSink{h}, nil }
func (*dropHandler) Accept(context.Context, *Envelope, Sink) (Receipt, error) {
	return Receipt{ID: "1"}, nil
}

// BenchmarkReceive sends messages over loopback TCP, one connection per
// processor, to us and to bare go-smtp.
func BenchmarkReceive(b *testing.B) {
	for _, size := range []int{50 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("wire/%dKiB", size>>10), func(b *testing.B) {
			h := &dropHandler{}
			l := listen(b, h, nil)
			sendMany(b, l.Addr().String(), size)
			if want := int64(b.N) * int64(size); h.bytes.Load() != want {
				b.Fatalf("%d bytes arrived, want %d", h.bytes.Load(), want)
			}
		})
		b.Run(fmt.Sprintf("bare/%dKiB", size>>10), func(b *testing.B) {
			s := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return bareSession{}, nil }))
			s.MaxMessageBytes, s.ErrorLog = 64<<20, libraryLog{quiet}
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			go s.Serve(ln)
			defer s.Close()
			sendMany(b, ln.Addr().String(), size)
		})
	}
}

func sendMany(b *testing.B, addr string, size int) {
	line := strings.Repeat("x", 76) + "\r\n"
	body := []byte(strings.Repeat(line, size/len(line)) + strings.Repeat("y", size%len(line)-2) + "\r\n.\r\n")
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		answer := func(code byte) {
			for {
				line, err := r.ReadSlice('\n')
				if err != nil || line[0] != code {
					b.Errorf("got %q, %v", line, err)
					return
				}
				if line[3] == ' ' {
					return
				}
			}
		}
		answer('2')
		io.WriteString(c, hello)
		answer('2')
		for pb.Next() && !b.Failed() {
			io.WriteString(c, envelope+"DATA\r\n")
			answer('2')
			answer('2')
			answer('3')
			c.Write(body)
			answer('2')
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msgs/s")
}
