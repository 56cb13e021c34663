namespace go api

struct Request {
    1: string message
}

struct Response {
    1: string message
    2: string server
}

service Hello {
    Response echo(1: Request req)
}
