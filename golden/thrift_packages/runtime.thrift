namespace go runtime

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_runtime {
    Response echo(1: Request req)
}
