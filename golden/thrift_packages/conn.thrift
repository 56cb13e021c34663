namespace go conn

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_conn {
    Response echo(1: Request req)
}
