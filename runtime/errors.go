package etcd

import "errors"

// ErrClosed is what everything returns that is asked of a closed Conn. Test for it with errors.Is.
var ErrClosed = errors.New("etcd: the Conn is closed; nothing can be registered or discovered through it any more")

// errNilConn is what everything returns that is asked of a nil Conn.
var errNilConn = errors.New("etcd: the Conn is nil; make one with etcd.Connect and check its error")
