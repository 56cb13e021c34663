namespace go etcd0

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_etcd0 {
    Response echo(1: Request req)
}
