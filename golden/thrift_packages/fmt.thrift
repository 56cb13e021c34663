namespace go fmt

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_fmt {
    Response echo(1: Request req)
}
