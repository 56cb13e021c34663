package etcd

import "os"

// What tests outside the package, which use generated code, need of its inside.

var (
	NewTestConn      = connect
	NewTestConnTo    = connectTo
	NewTestEtcd      = etcdClient
	PutForTesting    = put
	RemoveForTesting = remove
	AwaitForTesting  = await
	Eventually       = eventually
)

// BalancersForTesting returns how many clients' balancers and how many targets c knows.
func BalancersForTesting(c *Conn) (own, keys int) {
	b := c.directory.balance
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.pushers {
		p.mu.Lock()
		own += len(p.own)
		p.mu.Unlock()
		keys += len(*p.keys.Load())
	}
	return own, keys
}

// Long says whether the tests that take minutes are wanted.
func Long() bool { return os.Getenv("KITEX_ETCD_LONG") != "" }
