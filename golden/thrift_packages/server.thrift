namespace go server

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service In_server {
    Response echo(1: Request req)
}
