namespace go opts

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_opts {
    Response echo(1: Request req)
}
