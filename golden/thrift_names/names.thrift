namespace go api

struct Request {
    1: string message
}

struct Response {
    1: string message
}

service lower {
    Response echo(1: Request req)
}

service snake_case {
    Response echo(1: Request req)
}

service ALLCAPS {
    Response echo(1: Request req)
}

service H2O {
    Response echo(1: Request req)
}

service trailing_ {
    Response echo(1: Request req)
}

service Etcd {
    Response echo(1: Request req)
}

service context {
    Response echo(1: Request req)
}

service Handler {
    Response echo(1: Request req)
}

service Errors {
    Response echo(1: Request req)
}

service Client {
    Response echo(1: Request req)
}

service Server {
    Response echo(1: Request req)
}
