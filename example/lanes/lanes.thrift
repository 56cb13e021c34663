namespace go lanes

service Back {
    string place()
}

service Front {
    list<string> places()
}
