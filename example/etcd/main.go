// Etcd runs an etcd to try things with: one member on 127.0.0.1:2379, whose data are gone when it ends. It is not for production.
//
//	go run ./example/etcd
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "kitex-etcd-example-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	cfg := embed.NewConfig() // clients on 127.0.0.1:2379
	cfg.Dir = dir
	cfg.LogLevel = "fatal" // it logs an error for each listener that it closes
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("%w: start an etcd; if another one runs on this machine, use that", err)
	}
	defer etcd.Close()
	select {
	case <-etcd.Server.ReadyNotify():
	case err := <-etcd.Err():
		return err
	case <-ctx.Done():
		return nil
	}
	fmt.Println("etcd serves on 127.0.0.1:2379 until Ctrl-C")
	select {
	case <-ctx.Done():
		return nil
	case err := <-etcd.Err():
		return errors.Join(errors.New("etcd ended"), err)
	}
}
