include "base.thrift"
namespace go left

service Left extends base.Base {
    base.Response left(1: base.Request req)
}
