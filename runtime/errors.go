package etcd

import (
	"errors"

	"github.com/kitex-contrib/kitex-etcd/runtime/internal/link"
)

// ErrClosed is what everything returns that is asked of a closed Conn. Test for it with errors.Is.
var ErrClosed = link.ErrClosed

// ErrMarksChanged is why [Conn.SetMarkSince] wrote nothing. Test for it with errors.Is.
var ErrMarksChanged = errors.New("etcd: a mark of the service was written meanwhile")

// errNilConn is what everything returns that is asked of a nil Conn.
var errNilConn = errors.New("etcd: the Conn is nil; make one with etcd.Connect and check its error")
