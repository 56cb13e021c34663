namespace go shop

struct Item {
    1: string name
    2: i32 quantity
}

struct Reply {
    1: string text
}

service Orders {
    Reply place(1: Item item)
}

service Stock {
    Reply count(1: Item item)
}
