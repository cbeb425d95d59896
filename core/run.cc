#include "core/run.h"

#include <algorithm>
#include <charconv>
#include <cstring>

#include "core/shard.h"

namespace peregrine::core {
namespace {

constexpr std::string_view kReservedReplies[] = {"_R_.", "$JS.ACK.", "_GR_."};

// Copies `size` bytes in words of 16; reads and writes up to 15 more.
[[gnu::always_inline]] inline void copy_loosely(char* to, const char* from, size_t size) {
  size_t at = 0;
  do {
    std::memcpy(to + at, from + at, 16);
    at += 16;
  } while (at < size);
}

}  // namespace

Run::Run(Shard& shard)
    : shard_(shard),
      possible_(static_cast<size_t>(shard.server().options.max_pending) >= kLeastMaxPending),
      stall_above_(static_cast<size_t>(shard.server().options.max_pending) / 4 * 3),
      max_pending_(static_cast<size_t>(shard.server().options.max_pending)),
      most_crossing_payload_(static_cast<size_t>(shard.server().options.native.inline_payload_bytes)) {}

Run::~Run() {
  if (block_ != nullptr) shard_.pool().drop(block_);
}

// Whether messages can be handed to it without asking anything about each.
bool Run::may_receive(const Subscription& sub) const {
  const Session& to = *sub.session;
  return !sub.closed && !sub.limited && !sub.peer && !to.closing() && to.permissions == nullptr &&
         (&to != from_ || to.echo) && to.outbox.pending() <= stall_above_;
}

bool Run::open(Session* from, Account& account, const Operation& operation) {
  if (!possible_ || operation.subject.size() > kMostLine / 2) return false;
  // Peers have rules of their own for each message. (What crossed in frames is for clients only.)
  if (from != nullptr && (account.live_sides() & reach(from->kind)) != kClientsOnly) return false;
  match_ = account.sublist.match(operation.subject);
  if (!match_.groups.empty() || (from == nullptr && match_.plain.empty())) return false;
  if (from == nullptr) match_.shards = 0;
  from_ = from;
  std::string_view sid;
  direct_ = nullptr;
  if (!match_.plain.empty()) {
    sid = match_.plain[0]->sid();
    if (sid.size() > 64) return false;
    for (const Subscription* sub : match_.plain) {
      if (!may_receive(*sub) || sub->sid() != sid) return false;
    }
    if (match_.plain.size() == 1) direct_ = match_.plain[0]->session;
  }
  most_frames_ = SIZE_MAX;
  if (match_.shards != 0) most_frames_ = std::min<size_t>(kRunBytes, shard_.largest_record() - sizeof(FramesRecord));
  account_ = &account;
  subject_size_ = static_cast<uint32_t>(operation.subject.size());
  char* at = put(put(out_line_, "MSG "), operation.subject);
  *at++ = ' ';
  at = put(at, sid);
  *at++ = ' ';
  head_size_ = static_cast<uint32_t>(at - out_line_);
  messages_ = payload_bytes_ = out_bytes_ = 0;
  frames_ = frames_end_ = nullptr;
  in_size_ = 0;
  open_ = true;
  ended_ = false;
  if (add(operation)) return true;
  open_ = false;
  return false;
}

bool Run::add(const Operation& operation) {
  const std::string_view subject(out_line_ + 4, subject_size_);
  if (ended_ || operation.subject != subject) return false;
  const size_t size = operation.payload.size();
  if (!operation.reply.empty()) {
    // Others may have to be told that nobody took it.
    if (match_.plain.empty() || match_.shards != 0) return false;
    if (operation.reply[0] == '_' || operation.reply[0] == '$') {
      for (const std::string_view reserved : kReservedReplies) {
        if (operation.reply.starts_with(reserved)) return false;
      }
    }
  }
  const char* const line = operation.subject.data() - 4;
  if (std::memcmp(line, "PUB ", 4) != 0) return false;  // "pub", or more blanks than one
  const auto line_size = static_cast<size_t>(operation.payload.data() - line);
  if (match_.shards != 0) {
    const char* const first = frames_ == nullptr ? line : frames_;
    const auto bytes = static_cast<size_t>(operation.payload.data() + size + 2 - first);
    if (bytes > most_frames_ || size > most_crossing_payload_) return false;
  }
  if (!shape(operation.reply, size)) return false;
  // As received: up to the payload, which the line stands directly before.
  if (operation.reply.empty() && line_size <= kMostLine) {
    std::memcpy(in_line_, line, line_size);
    in_size_ = static_cast<uint32_t>(line_size);
  } else {
    in_size_ = 0;
  }
  if (frames_ == nullptr) frames_ = line;
  write(operation.payload.data());
  frames_end_ = operation.payload.data() + size + 2;
  return true;
}

// The line of a message with this reply and size.
bool Run::shape(std::string_view reply, size_t payload_size) {
  if (!match_.plain.empty()) {
    if (reply.size() > kMostLine || (direct_ == nullptr && payload_size > kMostFrame)) return false;
    char* at = out_line_ + head_size_;
    if (!reply.empty()) {
      at = put(at, reply);
      *at++ = ' ';
    }
    at = std::to_chars(at, at + 20, payload_size).ptr;
    *at++ = '\r';
    *at++ = '\n';
    out_size_ = static_cast<uint32_t>(at - out_line_);
    if (out_size_ + payload_size + 2 + kSlack > BufferPool::kLargeChunk) return false;
  }
  payload_size_ = static_cast<uint32_t>(payload_size);
  return true;
}

// Where the next `size` bytes (and kSlack) may be encoded.
char* Run::room(size_t size) {
  if (direct_ != nullptr) return direct_->outbox.reserve(size + kSlack);
  if (block_ == nullptr) {
    block_ = shard_.pool().take_block();
    block_used_ = 0;
  }
  return const_cast<char*>(block_->data) + block_used_;
}

void Run::write(const char* payload_and_crlf) {
  ++messages_;
  payload_bytes_ += payload_size_;
  if (match_.plain.empty()) return;
  const size_t size = out_size_ + payload_size_ + 2;
  char* to = room(size);
  std::memcpy(to, out_line_, out_size_);
  std::memcpy(to + out_size_, payload_and_crlf, payload_size_ + 2);
  if (direct_ != nullptr) {
    direct_->outbox.commit(size);
  } else {
    block_used_ += static_cast<uint32_t>(size);
  }
  out_bytes_ += size;
  ended_ = out_bytes_ >= kRunBytes;
}

void Run::take_alike(std::string_view& in) {
  const size_t line = in_size_;
  const size_t frame = line + payload_size_ + 2;
  const size_t size = out_size_ + payload_size_ + 2;
  // kSlack behind the last frame: comparing and copying may read too much.
  if (ended_ || line == 0 || in.size() < frame + kSlack) return;
  const char* p = in.data();
  const char* last = p + (in.size() - frame - kSlack);
  if (match_.shards != 0) {
    const auto taken = static_cast<size_t>(p - frames_);
    if (taken + frame > most_frames_) return;
    last = std::min(last, p + (most_frames_ - taken - frame));
  }
  const auto alike = [&] {
    const char* const end = p + frame - 2;
    return same_bytes(p, in_line_, line) && end[0] == '\r' && end[1] == '\n';
  };
  uint64_t n = 0;
  if (match_.plain.empty()) {
    for (; p <= last && alike(); p += frame) ++n;
  } else {
    while (p <= last && out_bytes_ < kRunBytes) {
      // Whole pieces of the outbox at a time: what is asked for each message is only whether it is alike.
      char* const from = room(size);
      const size_t space = direct_ != nullptr ? direct_->outbox.space() - kSlack : block_->size - block_used_ - kSlack;
      uint64_t most = std::min(space, kRunBytes + size - out_bytes_) / size;
      char* to = from;
      if (payload_size_ + 2 <= 256 && out_size_ <= 64) {
        for (; most > 0 && p <= last && alike(); --most) {
          copy_loosely(to, out_line_, out_size_);
          copy_loosely(to + out_size_, p + line, payload_size_ + 2);
          to += size;
          p += frame;
        }
      } else {
        for (; most > 0 && p <= last && alike(); --most) {
          std::memcpy(to, out_line_, out_size_);
          std::memcpy(to + out_size_, p + line, payload_size_ + 2);
          to += size;
          p += frame;
        }
      }
      const auto written = static_cast<size_t>(to - from);
      if (written == 0) break;
      n += written / size;
      out_bytes_ += written;
      if (direct_ != nullptr) {
        direct_->outbox.commit(written);
      } else {
        block_used_ += static_cast<uint32_t>(written);
      }
      if (most > 0) break;
    }
    ended_ = out_bytes_ >= kRunBytes;
  }
  messages_ += n;
  payload_bytes_ += n * payload_size_;
  frames_end_ = p;
  in.remove_prefix(static_cast<size_t>(p - in.data()));
}

void Run::finish() {
  open_ = false;
  if (from_ != nullptr) {
    from_->traffic.in_msgs += messages_;
    from_->traffic.in_bytes += payload_bytes_;
    account_->traffic.in_msgs += messages_;
    account_->traffic.in_bytes += payload_bytes_;
  }
  const bool share = direct_ == nullptr && out_bytes_ >= kShareFrom;
  if (share) block_->size = block_used_;
  for (Subscription* sub : match_.plain) {
    Session& to = *sub->session;
    sub->delivered += messages_;
    to.traffic.out_msgs += messages_;
    to.traffic.out_bytes += payload_bytes_;
    if (share) {
      to.outbox.append_shared(block_, 0);
    } else if (direct_ == nullptr) {
      to.outbox.append({block_->data, block_used_});
    }
    shard_.mark_dirty(to);
    if (to.outbox.pending() > Shard::kPaceAbove) [[unlikely]] {
      if (from_ != nullptr && direct_ != nullptr) shard_.pace(*from_, to);
      if (to.outbox.pending() > max_pending_) shard_.delivery().slow_consumer(to, *account_);
    }
  }
  account_->traffic.out_msgs += messages_ * match_.plain.size();
  account_->traffic.out_bytes += payload_bytes_ * match_.plain.size();
  if (match_.shards != 0) send_frames();
  if (share) {
    shard_.pool().drop(block_);
    block_ = nullptr;
  }
  block_used_ = 0;
}

void Run::send_frames() {
  FramesRecord record;
  record.account = account_->number;
  record.bytes = static_cast<uint32_t>(frames_end_ - frames_);
  for (ShardSet rest = match_.shards; rest != 0; rest &= rest - 1) {
    const auto target = static_cast<uint32_t>(__builtin_ctzll(rest));
    char* at = shard_.begin_delivery(target, record.size(), from_);
    std::memcpy(at, &record, sizeof(record));
    std::memcpy(at + sizeof(record), frames_, record.bytes);
    shard_.end_delivery(target);
  }
}

}  // namespace peregrine::core
