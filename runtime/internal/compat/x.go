package compat
import (
 _ "github.com/kitex-contrib/registry-etcd"
 _ "github.com/kitex-contrib/kitex-etcd/runtime"
 )
