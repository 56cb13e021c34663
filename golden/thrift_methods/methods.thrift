namespace go api

struct Request {
    1: string message
}

struct Response {
    1: string message
}

exception Refused {
    1: string reason
}

service Methods {
    oneway void notify(1: Request req)
    void nothing()
    Response fail(1: Request req) throws (1: Refused refused)
    i64 add(1: i64 a, 2: i64 b)
    map<string, list<Response>> find(1: set<string> names)
}
