namespace go options

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_options {
    Response echo(1: Request req)
}
