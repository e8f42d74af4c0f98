package cache

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// memcachedReader reads several keys of one server at once, over connections
// that it keeps. The client's own GetMulti starts a goroutine and fills a map
// of items for each call, which is more than the rest of a hit costs.
type memcachedReader struct {
	address string
	timeout time.Duration
	conns   conns
	idle    chan *memcachedConn // as many as there are trips
}

type memcachedConn struct {
	net.Conn
	in       *bufio.Reader
	out      []byte
	deadline time.Time
}

func newMemcachedReader(address string, timeout time.Duration) *memcachedReader {
	dialer := net.Dialer{Timeout: timeout}
	return &memcachedReader{
		address: address, timeout: timeout, conns: conns{dial: dialer.DialContext},
		idle: make(chan *memcachedConn, lineTrips),
	}
}

// fetch puts what is stored under keys, which differ, into values. A connection
// that the server has closed meanwhile is replaced.
func (r *memcachedReader) fetch(keys []string, values [][]byte) error {
	return again(func() error {
		c, err := r.conn()
		if err != nil {
			return err
		}
		if err := c.fetch(keys, values, r.timeout); err != nil {
			c.Close() // its next answer might be the rest of this one
			return err
		}
		select {
		case r.idle <- c:
		default:
			c.Close()
		}
		return nil
	})
}

func (r *memcachedReader) conn() (*memcachedConn, error) {
	select {
	case c := <-r.idle:
		return c, nil
	default:
	}
	conn, err := r.conns.Dial(context.Background(), "tcp", r.address)
	if err != nil {
		return nil, err
	}
	return &memcachedConn{Conn: conn, in: bufio.NewReaderSize(conn, 16<<10)}, nil
}

// close closes the connections. No fetch is under way any more.
func (r *memcachedReader) close() {
	for {
		select {
		case c := <-r.idle:
			c.Close()
		default:
			return
		}
	}
}

// extend gives what follows at least nine tenths of timeout: a deadline is not
// worth moving for less.
func (c *memcachedConn) extend(timeout time.Duration) error {
	deadline := time.Now().Add(timeout)
	if deadline.Sub(c.deadline) < timeout/10 {
		return nil
	}
	c.deadline = deadline
	return c.SetDeadline(deadline)
}

// fetch is "get k1 k2 …": the server answers with what it has, in this order,
// and END.
func (c *memcachedConn) fetch(keys []string, values [][]byte, timeout time.Duration) error {
	if err := c.extend(timeout); err != nil {
		return err
	}
	c.out = append(c.out[:0], "get"...)
	for i, key := range keys {
		values[i] = nil
		c.out = append(append(c.out, ' '), key...)
	}
	c.out = append(c.out, "\r\n"...)
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	for next := 0; ; next++ {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if bytes.Equal(line, []byte("END\r\n")) {
			return nil
		}
		key, size, err := valueLine(line)
		if err != nil {
			return err
		}
		for next < len(keys) && keys[next] != string(key) {
			next++
		}
		if next == len(keys) {
			return fmt.Errorf("memcached answered with a key that was not asked for: %.60q", line)
		}
		value := make([]byte, size+2)
		if _, err := io.ReadFull(c.in, value); err != nil {
			return err
		}
		if value[size] != '\r' || value[size+1] != '\n' {
			return errors.New("memcached answered with a value that does not end")
		}
		values[next] = value[:size:size]
	}
}

// valueLine reads "VALUE key flags bytes\r\n".
func valueLine(line []byte) (key []byte, size int, err error) {
	rest, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\r\n")), []byte("VALUE "))
	key, rest, _ = bytes.Cut(rest, []byte(" "))
	_, number, _ := bytes.Cut(rest, []byte(" "))
	size, err = strconv.Atoi(string(number))
	if !ok || err != nil || size < 0 || size > maxStored {
		return nil, 0, fmt.Errorf("memcached answered %.60q", line)
	}
	return key, size, nil
}
