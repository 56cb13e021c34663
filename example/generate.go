package main

//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd hello.thrift
//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd ticker.proto
//go:generate go tool kitex-etcd-gen
