// Package etcd registers Kitex servers in etcd and lets Kitex clients find them.
//
// A [Conn] is a process's connection to one etcd cluster. Generated code takes it:
//
//	conn, err := etcd.Connect([]string{"127.0.0.1:2379"})
//	svr, err := hello.NewHelloServerWithEtcd(handler, conn) // registers as "Hello" while it runs
//	cli, err := hello.NewHelloClientWithEtcd(conn)          // finds the servers of "Hello"
//
// # What is where
//
//   - To begin: [Connect] and its options, [Conn.Close].
//   - Without generated code: [Conn.ServerOptions] and [Conn.ClientOptions], for Kitex's own constructors.
//   - To choose instances: [Prefer] and [Lane]. Instances that do not answer get no calls: [WithEjection].
//   - To start while etcd is down: [WithBackgroundRegister] for servers, [WithSnapshots] for clients.
//   - To see what happens: [WithEventHandler], [Conn.Registered], [Conn.Services]; metrics are in package etcdprom, a readiness
//     probe is in package etcdready.
//   - To read lists of instances without a Kitex client: [Conn.Instances], [Conn.Watch].
//   - To change a running server: [Conn.Update] from the program, [Conn.SetMark] from outside.
//   - For programs written for registry-etcd: [NewEtcdRegistry], [NewEtcdResolver] and the functions beside them.
//   - For generated code only: [NewServer], [NewClient], [NewStreamClient], [SupportsGenerated1].
//
// # Lifecycle
//
// [Connect] checks every setting and does not use the network. Make one Conn for the process, then all servers and clients from
// it.
//
// A server registers when its Run has begun to listen. When it is told to stop, it deletes its record first. Then it serves for
// the drain delay ([WithDrainDelay]), while clients take it off their lists. Then it closes its listener.
//
// Call [Conn.Close] last, after Run of the servers has returned. It deletes the records that are left. Clients can still call the
// instances that they know, but see no more changes.
//
// # Registration
//
// All records of a Conn are in etcd under one lease, which is renewed as long as a record is wanted. If a record or the lease is
// lost, it is written again, until the server is deregistered:
//
//	       Register                written              the record or the lease is gone
//	absent ────────> registering ─────────> registered ──────────────────────────────────> lost
//	                                           │   ^                                       │  │
//	                                           │   └──────────── written again ────────────┘  │
//	                                           └─────> taken over, by another process <───────┘
//
// Deregister ends each of these states. The events are [EventRegistered], [EventRecordLost] or [EventLeaseLost],
// [EventRestored], [EventTakenOver] and [EventDeregistered]. [EventRepairFailed] says that etcd refuses to write a lost record; it
// is tried again.
//
// If another process registers the same address, its record is left alone. When that record is gone, the older process registers
// again.
//
// The record of a server that is killed stays until the lease ends ([WithLeaseTTL]).
//
// # Discovery
//
// A service is followed from the moment when a client of it is made, or [Conn.Instances] or [Conn.Watch] asks for it. It is read
// once, then watched. Each change goes to the load balancers of the running clients as it arrives.
//
//	                read            unused for 3 minutes        next use
//	unsynced ────────────> current ─────────────────────> idle ──────────> waking
//	                        │  ^ ^                                           │
//	  watch lost, or wrong  │  │ └───────────────────read────────────────────┘
//	                        └──┘ read again
//
// An idle service costs etcd nothing and keeps its last instances. While a watch is lost, clients use the last instances, without
// limit of time. The events are [EventSynced] and [EventWatchLost]; [Conn.Services] has the state.
//
// # What waits, and what fails
//
//   - Connect and the constructors of generated code never wait for etcd. Their errors are mistakes in settings or arguments.
//   - Registering waits for etcd for 3 s at most. Its error is that of the server's Run. With [WithBackgroundRegister] it waits
//     for half a second, and then goes on in the background: [EventRecordLost] says that it does, [EventRegistered] that it is
//     done.
//   - The first use of a service waits for etcd for 3 s at most, and not longer than the caller's context. It fails if etcd did not
//     answer, and the error has the cause. With [WithSnapshots] it waits for 300 ms and then uses the list that an earlier process
//     stored. After that, no use fails. None waits either, except the first one after idleness, for 300 ms at most.
//   - A call of a service without instances fails, with an error that names service and prefix.
//   - Deregistering waits for etcd for 3 s at most, and for the drain delay. If etcd does not answer, the record ends with its
//     lease.
//   - The methods of a nil Conn return errors. Those of a closed Conn return [ErrClosed] for everything that it did not know
//     before. Neither panics.
//
// Errors begin with the cause and say what to do. They wrap the cause, for errors.Is and errors.As, and contain no secret.
//
// # Concurrency
//
// All functions and methods may be called concurrently. Options and a [Config] belong to the one call of Connect to which they are
// given. Events come in order, on a goroutine of their own; a handler may be slow and may call the Conn. Lists of instances are
// shared, and must not be changed.
//
// If a function of yours panics (a handler of events, a load balancer, the function given to Lane or WithAuthFunc), the panic is
// logged, or becomes the error of the attempt. It does not end the process.
package etcd
