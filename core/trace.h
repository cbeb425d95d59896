// What the log's trace shows of messages, beside their protocol lines (Shard::trace). Called on the session's shard,
// only while shard.tracing().
#pragma once

#include <cstdint>
#include <string_view>

namespace peregrine::core {

class Session;
class Shard;

// "->>" out or "<<-" in. Cut at max_traced_msg_len; with trace_headers only the header block; nothing of an empty one.
void trace_payload(Shard& shard, const Session& session, std::string_view arrow, std::string_view payload,
                   uint32_t header_size);

}  // namespace peregrine::core
