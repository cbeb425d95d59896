#include "core/trace.h"

#include <string>

#include "core/go_format.h"
#include "core/shard.h"

namespace peregrine::core {

void trace_payload(Shard& shard, const Session& session, std::string_view arrow, std::string_view payload,
                   uint32_t header_size) {
  constexpr std::string_view kEndOfHeaders = "\r\n\r\n";
  const config::Options& options = shard.server().options;
  if (options.trace_headers) {
    payload = payload.substr(0, header_size);
    if (payload.ends_with(kEndOfHeaders)) payload.remove_suffix(kEndOfHeaders.size());
  }
  if (payload.empty()) return;
  const auto most = static_cast<size_t>(options.max_traced_msg_len);
  const bool cut = most != 0 && payload.size() > most;
  shard.server().log.trace("{} - {} MSG_PAYLOAD: [{}]", session.label(), arrow,
                           quote(cut ? std::string(payload.substr(0, most)) + "..." : std::string(payload)));
}

}  // namespace peregrine::core
