namespace go etcd

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_etcd {
    Response echo(1: Request req)
}
