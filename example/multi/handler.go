// Package multi is the handlers of Orders and Stock, two services of one server; server and client beside it are the
// programs.
package multi

import (
	"context"
	"fmt"

	"github.com/kitex-contrib/kitex-etcd/example/multi/kitex_gen/shop"
)

//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd shop.thrift
//go:generate go tool kitex-etcd-gen

// Orders implements the service Orders.
type Orders struct{}

// Place says what was ordered.
func (*Orders) Place(ctx context.Context, item *shop.Item) (*shop.Reply, error) {
	return &shop.Reply{Text: fmt.Sprintf("ordered %d %s", item.Quantity, item.Name)}, nil
}

// Stock implements the service Stock.
type Stock struct{}

// Count says what is there: always enough.
func (*Stock) Count(ctx context.Context, item *shop.Item) (*shop.Reply, error) {
	return &shop.Reply{Text: fmt.Sprintf("%d %s in stock", item.Quantity+1, item.Name)}, nil
}
