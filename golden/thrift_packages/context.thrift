namespace go context

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_context {
    Response echo(1: Request req)
}
