namespace go one.two.three

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service Nested {
    Response echo(1: Request req)
}
