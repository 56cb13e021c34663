package faultproxy

import (
	"io"
	"net"
	"sync"
	"time"
)

// packet is how much of a connection's bytes the line carries at once. The packets of all connections take turns.
const packet = 1500

// queueLen is how many packets of one connection and direction wait for the line. What comes after them waits in the sender's
// socket, as behind a full router.
const queueLen = 1024

// A line is one direction of the way between clients and target. All connections share it.
type line struct {
	mu    sync.Mutex
	rate  int           // bytes a second; 0: any number
	delay time.Duration // on top of the time that the bytes take
	free  time.Time     // when what was sent so far has passed
}

// Line makes the way to the target and the way back carry rate bytes a second each, for all connections together, and every
// byte delay later. Bytes queue for the line in order; a delay alone lets any number of them through. 0 means no limit, and
// no delay. Packets that are under way already are not affected.
func (p *Proxy) Line(rate int, delay time.Duration) {
	for _, l := range []*line{&p.there, &p.back} {
		l.mu.Lock()
		l.rate, l.delay, l.free = rate, delay, time.Time{}
		l.mu.Unlock()
	}
}

// due returns when n bytes that are sent now arrive.
func (l *line) due(n int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	if l.rate > 0 {
		l.free = l.free.Add(time.Duration(n) * time.Second / time.Duration(l.rate))
	}
	return l.free.Add(l.delay)
}

// passage is one connection's use of a line: a reader of what src sends, when it has passed the line.
type passage struct {
	queue chan passing
	rest  passing
}

// passing is a packet under way; its last one has the error that ended the connection.
type passing struct {
	bytes []byte
	due   time.Time
	err   error
}

// through returns a reader that delivers what src sends over l. It is to be read until its error.
func (p *Proxy) through(l *line, src net.Conn) io.Reader {
	q := &passage{queue: make(chan passing, queueLen)}
	p.running.Go(func() {
		defer close(q.queue)
		for {
			buf := make([]byte, packet)
			n, err := src.Read(buf)
			q.queue <- passing{bytes: buf[:n], due: l.due(n), err: err}
			if err != nil {
				return
			}
		}
	})
	return q
}

func (q *passage) Read(b []byte) (int, error) {
	if len(q.rest.bytes) == 0 && q.rest.err == nil {
		next, ok := <-q.queue
		if !ok {
			return 0, io.EOF
		}
		time.Sleep(time.Until(next.due))
		q.rest = next
	}
	n := copy(b, q.rest.bytes)
	q.rest.bytes = q.rest.bytes[n:]
	if len(q.rest.bytes) > 0 {
		return n, nil
	}
	return n, q.rest.err
}
