#include "net/tcp/port.h"

#include <cstdlib>
#include <new>

namespace peregrine::net::tcp {

void* Port::allocate_block() {
  void* block = std::malloc(kBlockBytes);
  if (block == nullptr) throw std::bad_alloc();
  return block;
}

void Port::free_block(void* block) { std::free(block); }

}  // namespace peregrine::net::tcp
