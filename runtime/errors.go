package etcd

import (
	"errors"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// ErrClosed is the error of everything that needs a Conn which was closed. Test for it with errors.Is.
var ErrClosed = link.ErrClosed

// errNilConn is the error of everything that needs a Conn which is nil.
var errNilConn = errors.New("etcd: the Conn is nil; make one with etcd.Connect and check its error")
