namespace go client

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_client {
    Response echo(1: Request req)
}
