// NATS's configuration grammar: no input may crash it, hang it or make it allocate without bound.
#include "tests/fuzz/config_world.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  peregrine::config::fuzz::run("main.conf", data, size);
  return 0;
}
