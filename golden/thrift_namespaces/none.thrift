struct Request {
    1: string message
}

struct Response {
    1: string message
}

service NoNamespace {
    Response echo(1: Request req)
}
