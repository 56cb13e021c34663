package etcd

// What tests outside the package, which use generated code, need of its inside.

var (
	NewTestConn      = connect
	NewTestEtcd      = etcdClient
	PutForTesting    = put
	RemoveForTesting = remove
	AwaitForTesting  = await
)
