package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	old "github.com/kitex-contrib/registry-etcd"

	etcd "github.com/kitex-contrib/kitex-etcd/runtime"
)

// certificateFamily is a program with a password whose certificate cannot be read.
func certificateFamily() family {
	return family{
		name:  "certificate",
		quick: 2,
		about: "The certificate file that WithTLSOpt names holds no certificate, and WithAuthOpt gives a password; until 500 ms after the constructor has returned",
		rows: []row{
			{name: "certificate_taken", what: "constructors that return no error, of 1", unit: count, targets: []target{atMost(0)}},
			{name: "certificate_bytes", what: "on connections to etcd, in plaintext", unit: size, targets: []target{atMost(0)}},
		},
		open: func(b *bench) ([]side, error) {
			dir, err := os.MkdirTemp("", "kitex-etcd-bench-")
			if err != nil {
				return nil, err
			}
			b.cleanup(func() { os.RemoveAll(dir) })
			bad := filepath.Join(dir, "bad.pem")
			if err := os.WriteFile(bad, []byte("not a certificate\n"), 0o600); err != nil {
				return nil, err
			}
			return eachSide(func(ctx context.Context, lib string) (values, error) {
				px, err := b.proxy()
				if err != nil {
					return nil, err
				}
				if lib == ours {
					_, err = etcd.NewEtcdResolver(px.endpoints(), etcd.WithTLSOpt(bad, bad, bad), etcd.WithAuthOpt("user", "password"))
				} else {
					_, err = old.NewEtcdResolver(px.endpoints(), quietly, old.WithTLSOpt(bad, bad, bad), old.WithAuthOpt("user", "password"))
				}
				taken := 0.0
				if err == nil {
					taken = 1
				}
				if err := pause(ctx, 500*time.Millisecond); err != nil {
					return nil, err
				}
				return values{"certificate_taken": {taken}, "certificate_bytes": {float64(px.bytes.Load())}}, nil
			}), nil
		},
	}
}
