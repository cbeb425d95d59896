// The client parser: any bytes, fed whole and in two pieces, must give the same operations, and must never read beyond
// the buffer.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "core/parser.h"

namespace {

using peregrine::core::Operation;
using peregrine::core::Parser;
using peregrine::core::ParserLimits;
using peregrine::core::ParseStatus;

struct Outcome {
  std::string text;
  ParseStatus status = ParseStatus::kMore;
};

void feed(Parser& parser, const uint8_t* data, size_t size, const ParserLimits& limits, Outcome& outcome) {
  if (outcome.status != ParseStatus::kMore) return;
  const std::vector<char> own(data, data + size);  // exactly as long: one byte too far is seen
  std::string_view in(own.data(), own.size());
  Operation op;
  while ((outcome.status = parser.next(in, limits, op)) == ParseStatus::kOperation) {
    outcome.text += std::to_string(static_cast<int>(op.kind)) + "|";
    switch (op.kind) {
      case Operation::Kind::kPub:
      case Operation::Kind::kHpub:
        outcome.text.append(op.subject).append("|").append(op.reply).append("|").append(op.payload);
        if (op.header_size > op.payload.size()) std::abort();
        break;
      case Operation::Kind::kSub:
        outcome.text.append(op.subject).append("|").append(op.queue).append("|").append(op.sid);
        break;
      case Operation::Kind::kUnsub:
        outcome.text.append(op.sid).append("|").append(std::to_string(op.max));
        break;
      case Operation::Kind::kConnect:
      case Operation::Kind::kErr:
      case Operation::Kind::kInfo:
        outcome.text.append(op.subject);
        break;
      default:
        break;
    }
    outcome.text += "\n";
  }
  if (outcome.status == ParseStatus::kMore && !in.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const ParserLimits limits{
      .max_control_line = 128, .max_payload = 256, .headers = (data[0] & 1) != 0, .connect_first = (data[0] & 2) != 0};
  const size_t cut = data[1] % (size - 1);
  data += 2;
  size -= 2;
  Outcome whole, split;
  Parser one, two;
  feed(one, data, size, limits, whole);
  feed(two, data, cut < size ? cut : size, limits, split);
  if (cut < size) feed(two, data + cut, size - cut, limits, split);
  if (whole.text != split.text || whole.status != split.status) {
    std::fprintf(stderr, "whole %d:\n%s\nsplit %d:\n%s\n", static_cast<int>(whole.status), whole.text.c_str(),
                 static_cast<int>(split.status), split.text.c_str());
    std::abort();
  }
  return 0;
}
