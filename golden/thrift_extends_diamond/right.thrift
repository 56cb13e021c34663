include "base.thrift"
namespace go right

service Right extends base.Base {
    base.Response right(1: base.Request req)
}
