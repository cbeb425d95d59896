// What a peer sends: any bytes, fed whole and in two pieces, must give the same operations, and JSON lines must be read
// or refused, and written again, without a fault.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "cluster/peer_info.h"
#include "cluster/peer_parser.h"

namespace {

using namespace peregrine::cluster;

struct Outcome {
  std::string text;
  PeerStatus status = PeerStatus::kMore;
};

void feed(PeerParser& parser, const uint8_t* data, size_t size, Outcome& outcome) {
  if (outcome.status != PeerStatus::kMore) return;
  const std::vector<char> own(data, data + size);  // exactly as long: one byte too far is seen
  std::string_view in(own.data(), own.size());
  const PeerParser::Limits limits{.max_line = 256, .max_payload = 512};
  PeerOperation operation;
  while ((outcome.status = parser.next(in, limits, operation)) == PeerStatus::kOperation) {
    if (operation.header_size > operation.payload.size()) std::abort();
    outcome.text.append(std::to_string(static_cast<int>(operation.verb))).append("|").append(operation.text);
    for (const std::string_view token : operation.tokens) outcome.text.append("|").append(token);
    outcome.text.append("|").append(operation.payload).append("\n");
    if (operation.verb == PeerVerb::kInfo) {
      if (const auto info = parse_info(operation.text)) {
        if (!parse_info(to_json(*info))) std::abort();
      }
    }
    if (operation.verb == PeerVerb::kConnect) {
      if (const auto connect = parse_connect(operation.text)) {
        if (!parse_connect(to_json(*connect))) std::abort();
      }
    }
  }
  if (outcome.status == PeerStatus::kMore && !in.empty()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 1) return 0;
  const size_t cut = 1 + data[0] % size;
  PeerParser one, two;
  Outcome whole, cut_in_two;
  feed(one, data + 1, size - 1, whole);
  feed(two, data + 1, cut - 1, cut_in_two);
  feed(two, data + cut, size - cut, cut_in_two);
  // Garbage is refused as soon as it is recognised, which a cut may delay: then the operations before it are the same.
  if (whole.status != cut_in_two.status || whole.text != cut_in_two.text) std::abort();
  return 0;
}
