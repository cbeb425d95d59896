// libFuzzer: bytes become operations on the index and on its linear twin; any difference is a crash.
//
//   clang++ -std=c++2b -g -O1 -fsanitize=fuzzer,address,undefined -I. tests/fuzz/sublist_fuzz.cc core/sublist*.cc
//       core/huge_chunk.cc core/match_cache.cc core/subject.cc -o sublist_fuzz && ./sublist_fuzz -max_len=512
//
// Built with -DSUBLIST_FUZZ_MAIN it is a plain program that replays the files it is given.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "core/subject.h"
#include "core/sublist.h"
#include "tests/model/linear_sublist.h"

namespace {

using namespace peregrine;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return empty() ? 0 : data_[at_++]; }
  // Up to 15 characters, mostly from an alphabet that makes tokens, wildcards and mistakes.
  std::string text() {
    std::string made;
    for (size_t left = byte() & 15; left > 0; left--) {
      const uint8_t b = byte();
      made.push_back(b < 240 ? "ab.*.>.a"[b & 7] : static_cast<char>(b));
    }
    return made;
  }

 private:
  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
};

void fail(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(data, size);
  const core::HashKey key{input.byte(), input.byte()};
  core::Sublist index(key, 0, 1);
  model::LinearSublist twin(key, 1);
  std::vector<std::unique_ptr<core::Subscription>> subs;
  std::vector<std::string> asked;

  while (!input.empty() && subs.size() < 64) {
    const uint8_t op = input.byte();
    const std::string text = input.text();
    const std::string queue = op & 0x80 ? std::string(1, static_cast<char>('q' + (op >> 5 & 3))) : "";
    const uint32_t shard = 1 + (op >> 3 & 3);
    switch (op & 7) {
      case 0:
      case 1:
        if (core::is_valid_subject(text)) {
          subs.push_back(std::make_unique<core::Subscription>(nullptr, "1"));
          const auto got = index.insert(*subs.back(), text, queue), expected = twin.insert(*subs.back(), text, queue);
          if (got.kind != expected.kind || got.weight != expected.weight) fail("insert reports another change");
          if (index.subject_of(*subs.back()) != text || index.queue_of(*subs.back()) != queue) fail("texts differ");
        }
        break;
      case 2:
        if (!subs.empty()) {
          std::swap(subs[text.size() % subs.size()], subs.back());
          const auto got = index.remove(*subs.back()), expected = twin.remove(*subs.back());
          if (got.kind != expected.kind || got.weight != expected.weight) fail("remove reports another change");
          subs.pop_back();
        }
        break;
      case 3:
        if (core::is_valid_subject(text)) {
          index.set_remote(shard, text, !(op & 0x40));
          twin.set_remote(shard, text, !(op & 0x40));
        }
        break;
      case 4:
        if (core::is_valid_subject(text)) {
          const std::string name = queue.empty() ? "q" : queue;
          index.set_remote_queue(shard, text, name, op >> 5 & 3);
          twin.set_remote_queue(shard, text, name, op >> 5 & 3);
        }
        break;
      default:
        asked.push_back(text);
        if (asked.size() > 8) asked.erase(asked.begin());
    }
    // Again and again, so that cached answers are checked after every change.
    for (const std::string& subject : asked) {
      const std::string difference = twin.difference(index, subject);
      if (!difference.empty()) fail(difference);
    }
  }
  for (const auto& sub : subs) index.remove(*sub);
  return 0;
}

#ifdef SUBLIST_FUZZ_MAIN
#include <fstream>
#include <iterator>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; i++) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
}
#endif
