// YAML configurations: no input may crash us, hang us or make us allocate without bound. (yaml-cpp itself is on trial,
// too.)
#include "tests/fuzz/config_world.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  peregrine::config::fuzz::run("main.yaml", data, size);
  return 0;
}
