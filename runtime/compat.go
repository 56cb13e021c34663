package etcd

import (
	"errors"

	"github.com/cloudwego/kitex/pkg/discovery"
	"github.com/cloudwego/kitex/pkg/registry"

	"github.com/kitex-contrib/kitex-etcd/runtime/retry"
)

// The functions of registry-etcd. Each makes its own Conn, which lives as long as the process. New programs call Connect once and
// share the Conn.

// NewEtcdRegistry is for programs written for registry-etcd; new programs use [Connect]. It returns a registry that registers servers in
// the etcd cluster at endpoints, under the service name that Kitex gives it. It may be used for any number of servers, and lives as
// long as the process. Its errors are those of Connect.
func NewEtcdRegistry(endpoints []string, opts ...Option) (registry.Registry, error) {
	c, err := Connect(endpoints, opts...)
	if err != nil {
		return nil, err
	}
	return c.Registry(), nil
}

// NewEtcdRegistryWithAuth is [NewEtcdRegistry] with [WithAuthOpt].
func NewEtcdRegistryWithAuth(endpoints []string, username, password string) (registry.Registry, error) {
	return NewEtcdRegistry(endpoints, WithAuthOpt(username, password))
}

// NewEtcdRegistryWithRetry is [NewEtcdRegistry] with [WithRetry]. A nil retryConfig is an error.
func NewEtcdRegistryWithRetry(endpoints []string, retryConfig *retry.Config, opts ...Option) (registry.Registry, error) {
	if retryConfig == nil {
		return nil, errors.New("etcd: the retry configuration is nil; use retry.NewRetryConfig, or NewEtcdRegistry for its defaults")
	}
	return NewEtcdRegistry(endpoints, append(opts[:len(opts):len(opts)], WithRetry(retryConfig))...)
}

// NewEtcdResolver is for programs written for registry-etcd; new programs use [Connect]. It returns a resolver that finds the instances
// in the etcd cluster at endpoints. It may be used for any number of clients, and lives as long as the process. Its clients see a
// change when Kitex asks, every 5 s; clients made with [Conn.ClientOptions] see it at once. Its errors are those of Connect.
func NewEtcdResolver(endpoints []string, opts ...Option) (discovery.Resolver, error) {
	c, err := Connect(endpoints, opts...)
	if err != nil {
		return nil, err
	}
	return c.Resolver(), nil
}

// NewEtcdResolverWithAuth is [NewEtcdResolver] with [WithAuthOpt].
func NewEtcdResolverWithAuth(endpoints []string, username, password string) (discovery.Resolver, error) {
	return NewEtcdResolver(endpoints, WithAuthOpt(username, password))
}
