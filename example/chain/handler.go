// Package chain is the handlers of Prices and of Checkout, which calls Prices; prices, checkout and client beside it are
// the programs.
package chain

import (
	"context"
	"fmt"

	"github.com/kitex-contrib/kitex-etcd/example/chain/kitex_gen/shop/prices"
)

//go:generate go tool kitex -module github.com/kitex-contrib/kitex-etcd shop.thrift
//go:generate go tool kitex-etcd-gen

// PricesHandler implements Prices.
type PricesHandler struct{}

// Of returns the price of item, which grows with its name.
func (*PricesHandler) Of(ctx context.Context, item string) (int64, error) {
	return int64(10 * len(item)), nil
}

// CheckoutHandler implements Checkout with calls of Prices.
type CheckoutHandler struct{ Prices prices.Client }

// Total adds up the prices of items.
func (h *CheckoutHandler) Total(ctx context.Context, items []string) (int64, error) {
	var total int64
	for _, item := range items {
		price, err := h.Prices.Of(ctx, item)
		if err != nil {
			return 0, fmt.Errorf("price of %s: %w", item, err)
		}
		total += price
	}
	return total, nil
}
