include "left.thrift"
include "right.thrift"
namespace go top

service Top extends left.Left {}

service Side extends right.Right {}
