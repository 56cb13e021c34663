struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Dots {
    Response echo(1: Request req)
}
