namespace go api

struct Client {
    1: string name
}

struct Server {
    1: string name
}

struct StreamClient {
    1: string name
}

service Shop {
    Server open(1: Client who, 2: StreamClient how)
}
