// Package compat tests kitex-etcd beside its predecessor, github.com/kitex-contrib/registry-etcd: programs written for it
// compile and run, and the two find each other's servers. It is a separate module so that nothing else depends on the
// predecessor, nor on the newer sonic with which it compiles today.
package compat
