package etcd

import (
	"errors"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// ErrClosed is the error of everything that needs a Conn which was closed. Test for it with errors.Is.
var ErrClosed = link.ErrClosed

// ErrMarksChanged is why [Conn.SetMarkSince] wrote nothing. Test for it with errors.Is.
var ErrMarksChanged = errors.New("etcd: a mark of the service was written meanwhile")

// errNilConn is the error of everything that needs a Conn which is nil.
var errNilConn = errors.New("etcd: the Conn is nil; make one with etcd.Connect and check its error")
