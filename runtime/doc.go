// Package etcd registers Kitex servers in etcd and lets Kitex clients discover them.
//
// A Conn is a process's connection to one etcd cluster. Generated code takes it:
//
//	conn, err := etcd.Connect([]string{"127.0.0.1:2379"})
//	svr, err := hello.NewHelloServerWithEtcd(handler, conn) // registers as "Hello" while it runs
//	cli, err := hello.NewHelloClientWithEtcd(conn)          // finds the servers of "Hello"
//
// Without generated code, [Conn.ServerOptions] and [Conn.ClientOptions] are what to pass to Kitex's own constructors.
// [NewEtcdRegistry], [NewEtcdResolver] and their like are the functions of registry-etcd, for programs written for it.
//
// # Lifecycle
//
// [Connect] checks every setting and does not use the network. Then make servers and clients, as many as there are, from
// the one Conn. Run of a server registers it once it listens, and deregisters it before the listener closes: its record
// goes first, then it serves on for the drain delay ([WithDrainDelay]), in which clients take it from their lists.
// [Conn.Close] comes last, when the servers' Run has returned. It removes what still stands; clients go on with
// the instances they know, which do not change any more.
//
// # Registration
//
// A record stands in etcd under a lease that all records of the Conn share and that is kept alive for as long as one of
// them is wanted. Whatever happens to it meanwhile is put right, until the server is deregistered:
//
//	       Register                written              the record or the lease is gone
//	absent ────────> registering ─────────> registered ──────────────────────────────────> lost
//	                                           │   ^                                       │  │
//	                                           │   └────────────── written anew ───────────┘  │
//	                                           └─────> taken over, by another process <───────┘
//
// Deregister ends each of these states for good. The [Event] that tells of them is [EventRegistered], [EventRecordLost]
// or [EventLeaseLost], [EventRestored], [EventTakenOver], [EventDeregistered]; [EventRepairFailed] tells that etcd refuses
// what would lead out of lost, which is tried again. A process whose address was taken over leaves the other's record alone
// and comes back when that is gone. A server that is killed leaves its record behind until the lease ends
// ([WithLeaseTTL]).
//
// # Discovery
//
// A service is followed from the moment when a client of it is made, or from its first use by [Conn.Instances] or [Conn.Watch]. It
// is read once, then watched, and every change goes to the balancers of the running clients as it arrives.
//
//	                read            unused for 3 minutes        next use
//	unsynced ────────────> current ─────────────────────> idle ──────────> waking
//	                        │  ^ ^                                           │
//	  watch lost, or wrong  │  │ └───────────────────read────────────────────┘
//	                        └──┘ read anew
//
// An idle service costs etcd nothing and keeps its last instances. While a watch is lost the last instances are served,
// however long that takes. [EventSynced] and [EventWatchLost] tell of it, [Conn.Services] shows it.
//
// # What waits, and what fails
//
//   - Connect and the constructors of generated code never wait for etcd. Their errors are mistakes in settings or arguments.
//   - Registering waits for etcd for 3 s at most; its error, which names etcd's endpoints, is that of the server's Run. With
//     [WithBackgroundRegister] it waits half a second, and then goes on in the background: [EventRecordLost] says that
//     it does, [EventRegistered] when it is done.
//   - The first use of a service waits for etcd, for 3 s at most and not longer than until a little before the caller's deadline. It
//     fails with the cause when etcd did not answer. From then on no use of it fails, and none waits, but for the first after idleness: that one waits 300 ms at most. With [WithSnapshots] the first
//     use waits 300 ms for etcd and then has the list that an earlier process stored.
//   - A service without instances is no error of discovery. A call of it fails, with an error that names service and
//     prefix.
//   - Deregistering waits for etcd for 3 s at most, and for the drain delay. When etcd does not answer, the record ends with
//     its lease.
//   - A Conn that is nil answers with errors, and a closed one with [ErrClosed] for all that it did not know before. Neither
//     panics.
//
// Errors say what is wrong and what to do about it, wrap their cause for errors.Is and errors.As, and hold no secret.
//
// # Concurrency
//
// All functions and methods may be called concurrently. Options and a [Config] belong to the one call of Connect that
// they are given to. Events come in order, on a goroutine of their own: a handler may take its time and may call the
// Conn. Lists of instances are shared by all who ask and must not be changed.
package etcd
