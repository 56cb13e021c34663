include "chat.thrift"
namespace go room

service Room extends chat.Chat {}
