#include "bench/load_frames.h"

#include <algorithm>
#include <bit>
#include <cctype>
#include <random>

namespace peregrine::bench {
namespace {

constexpr char kHex[] = "0123456789abcdef";

void write_hex(char* to, uint32_t value, int digits) {
  for (int i = digits - 1; i >= 0; --i, value >>= 4) to[i] = kHex[value & 15];
}

// Above this a payload is compared as it streams in, instead of waiting until the whole frame is there.
constexpr size_t kStreamedFrameBytes = 4096;
constexpr size_t kTableBytesMax = 1 << 20;
constexpr uint32_t kFewSubjects = 65536;
constexpr uint32_t kFewPublishers = 128;

}  // namespace

Layout::Layout(uint32_t payload_bytes, uint32_t subjects, SubjectChoice choice, uint32_t subjects_per_sid, bool raw,
               uint32_t publishers)
    : payload_bytes_(payload_bytes), subjects_(subjects), choice_(choice), subjects_per_sid_(subjects_per_sid) {
  const std::string tail = std::to_string(payload_bytes) + "\r\n";
  const std::string name = subject(0);
  received_line_ = "MSG " + name + " " + sid(0) + " " + tail;
  received_subject_at_ = 4;
  received_sid_at_ = 5 + name.size();
  sent_line_ = raw ? received_line_ : "PUB " + name + " " + tail;
  sent_subject_at_ = 4;

  if (received_line_.size() * subjects <= kTableBytesMax) {
    lines_.resize(received_line_.size() * subjects);
    std::vector<char> line(received_line_.size());
    for (uint32_t i = 0; i < subjects; ++i) {
      write_received_line(line.data(), i);
      std::copy(line.begin(), line.end(), lines_.begin() + static_cast<ptrdiff_t>(i * line.size()));
    }
  }

  // About 64 KiB of frames: stays in L2 together with what is in flight. Round robin wants whole rounds in the batch.
  const size_t batch_bytes = publishers > kFewPublishers ? 1024 : 64 * 1024;
  frames_in_batch_ = std::bit_ceil(static_cast<uint32_t>(std::max<size_t>(4, batch_bytes / sent_frame_bytes())));
  if (choice == SubjectChoice::kCycle && subjects <= 16384)
    frames_in_batch_ = std::max(frames_in_batch_, std::bit_ceil(subjects));

  pattern_.resize(payload_bytes + 64 * 8);
  std::mt19937_64 random(20240229);
  for (char& c : pattern_) c = static_cast<char>(random());
}

std::string Layout::subject(uint32_t index) const {
  std::string text;
  if (subjects_ == 1) {
    text = "bench.load";
  } else {
    text = subjects_ <= kFewSubjects ? "bench.load.0000" : "bench.0000.0000.load";
    write_subject(text.data(), index);
  }
  return text;
}

std::string Layout::wildcard() const { return subjects_ > kFewSubjects ? "bench.*.*.load" : "bench.load.*"; }

void Layout::write_subject(char* to, uint32_t index) const {
  if (subjects_ == 1) return;
  if (subjects_ <= kFewSubjects) {
    write_hex(to + 11, index, 4);
  } else {
    const uint32_t scattered = index * 0x9E3779B1u;  // odd, so a bijection
    write_hex(to + 6, scattered >> 16, 4);
    write_hex(to + 11, scattered & 0xFFFF, 4);
  }
}

std::string Layout::sid(uint32_t index) const {
  if (subjects_per_sid_ == 0) return "1";
  std::string text = subjects_ <= 10'000 ? "10000" : "10000000";
  write_sid(text.data(), index);
  return text;
}

void Layout::write_sid(char* to, uint32_t index) const {
  if (subjects_per_sid_ == 0) return;
  const int digits = subjects_ <= 10'000 ? 5 : 8;
  uint32_t value = index / subjects_per_sid_;
  for (int i = digits - 1; i > 0; --i, value /= 10) to[i] = static_cast<char>('0' + value % 10);
}

void Layout::write_sent_line(char* to, uint32_t index) const {
  if (sent_line_.front() == 'M') return write_received_line(to, index);
  std::memcpy(to, sent_line_.data(), sent_line_.size());
  write_subject(to + sent_subject_at_, index);
}

void Layout::write_received_line(char* to, uint32_t index) const {
  std::memcpy(to, received_line_.data(), received_line_.size());
  write_subject(to + received_subject_at_, index);
  write_sid(to + received_sid_at_, index);
}

bool Layout::slow_same_line(const char* received, uint32_t index) const {
  char line[128];
  write_received_line(line, index);
  return std::memcmp(received, line, received_line_.size()) == 0;
}

// --- Publisher
// -----------------------------------------------------------------------------------------------------------

Publisher::Publisher(const Layout& layout, const Options& options, const Target& target,
                     const std::string& introduction)
    : layout_(layout), options_(options), connection_(target, introduction) {
  encode_batch();
}

void Publisher::encode_batch() {
  const size_t frame = layout_.sent_frame_bytes();
  batch_.resize(frame * layout_.frames_in_batch());
  for (uint32_t slot = 0; slot < layout_.frames_in_batch(); ++slot) {
    char* at = batch_.data() + slot * frame;
    layout_.write_sent_line(at, layout_.subject_of(options_.id, slot));
    char* payload = at + layout_.sent_line_bytes();
    if (layout_.payload_bytes() > 16) std::memcpy(payload + 16, layout_.body(slot) + 16, layout_.payload_bytes() - 16);
    std::memcpy(payload + layout_.payload_bytes(), "\r\n", 2);
  }
}

void Publisher::prepare(uint64_t frames) {
  const size_t frame = layout_.sent_frame_bytes();
  const uint64_t slot = prepared_ & (layout_.frames_in_batch() - 1);
  char* at = batch_.data() + slot * frame;
  from_ = at;
  const bool lines_move = !layout_.lines_fixed();
  const size_t head_bytes = std::min<size_t>(16, layout_.payload_bytes());
  for (uint64_t i = 0; i < frames; ++i, at += frame) {
    const uint64_t sequence = prepared_ + i;
    const uint32_t index = layout_.subject_of(options_.id, sequence);
    if (lines_move) layout_.write_sent_line(at, index);
    if (head_bytes == 16) {
      Layout::write_head(at + layout_.sent_line_bytes(), options_.id, sequence, index);
    } else {
      char head[16];
      Layout::write_head(head, options_.id, sequence, index);
      std::memcpy(at + layout_.sent_line_bytes(), head, head_bytes);
    }
  }
  to_ = at;
  prepared_ += frames;
}

void Publisher::next_control() {
  control_out_.swap(control_);
  control_.clear();
  from_ = control_out_.data();
  to_ = from_ + control_out_.size();
  writing_control_ = true;
}

void Publisher::pump(uint64_t limit, uint32_t writes_max) {
  const size_t frame = layout_.sent_frame_bytes();
  const uint64_t frames_per_write = options_.own_write ? 1 : std::max<uint64_t>(1, options_.write_bytes_max / frame);
  while (writes_max > 0 && !blocked_) {
    if (from_ == to_) {
      if (!control_.empty()) {
        next_control();
      } else if (prepared_ < limit) {
        const uint64_t left_in_batch = layout_.frames_in_batch() - (prepared_ & (layout_.frames_in_batch() - 1));
        uint64_t frames = std::min({limit - prepared_, left_in_batch, frames_per_write});
        if (options_.ack_every) frames = std::min(frames, pinged_at_ + options_.ack_every - prepared_);
        prepare(frames);
      } else {
        return;
      }
    }
    const size_t n = connection_.write_some(from_, static_cast<size_t>(to_ - from_));
    if (n == 0) {
      blocked_ = true;
      return;
    }
    --writes_max;
    ++writes_;
    from_ += n;
    if (from_ != to_) continue;
    if (writing_control_) {
      writing_control_ = false;
      continue;
    }
    completed_ = prepared_;
    if (options_.ack_every && completed_ == pinged_at_ + options_.ack_every) {
      pinged_at_ = completed_;
      // The relay counts for itself.
      if (layout_.sent_line_bytes() != layout_.received_line_bytes() || batch_[0] != 'M') control_ += "PING\r\n";
    }
  }
}

void Publisher::readable() {
  char buffer[4096];
  for (size_t n; (n = connection_.read_some(buffer, sizeof buffer)) != 0;) {
    line_.append(buffer, n);
    for (size_t end; (end = line_.find('\n')) != std::string::npos; line_.erase(0, end + 1)) {
      const std::string_view line(line_.data(), end);
      if (line.starts_with("PONG")) acknowledged_ += options_.ack_every;
      else if (line.starts_with("PING")) control_ += "PONG\r\n";
      else if (line.starts_with("-ERR")) throw Failure("publisher: " + std::string(line));
      else if (!line.starts_with("INFO") && !line.starts_with("+OK"))
        throw Failure("publisher: unexpected " + std::string(line));
    }
  }
}

// --- Subscriber
// ----------------------------------------------------------------------------------------------------------

Subscriber::Subscriber(const Layout& layout, const Options& options, const Target& target,
                       const std::string& introduction)
    : layout_(layout),
      options_(options),
      connection_(target, introduction),
      next_(options.only_publisher == UINT32_MAX ? options.publishers : 1, 0) {}

size_t Subscriber::readable(std::vector<char>& scratch, uint64_t* arrived) {
  const uint64_t before = received_;
  const size_t carried = carry_.size();
  std::memcpy(scratch.data(), carry_.data(), carried);
  const size_t n = connection_.read_some(scratch.data() + carried, scratch.size() - carried);
  if (n == 0) return 0;
  ++reads_;
  const size_t consumed = feed(scratch.data(), carried + n, arrived);
  carry_.assign(scratch.data() + consumed, carried + n - consumed);
  return received_ - before;
}

void Subscriber::accept(uint64_t word, uint32_t index, uint64_t* arrived) {
  const uint32_t publisher = static_cast<uint32_t>(word >> 48);
  const uint64_t sequence = word & 0xFFFF'FFFF'FFFFu;
  if (publisher >= options_.publishers)
    throw Failure("subscriber: message of publisher " + std::to_string(publisher) + ", which does not exist");
  if (options_.only_publisher != UINT32_MAX && publisher != options_.only_publisher)
    throw Failure("subscriber: message of another pair");
  if (index != layout_.subject_of(publisher, sequence)) throw Failure("subscriber: message on the wrong subject");
  uint64_t& next = next_[options_.only_publisher == UINT32_MAX ? publisher : 0];
  const bool right = options_.order == Order::kExact ? sequence == next : sequence >= next;
  if (!right) [[unlikely]] {
    throw Failure("subscriber " + std::to_string(options_.id) + ", publisher " + std::to_string(publisher) +
                  ": expected message " + std::to_string(next) + ", got " + std::to_string(sequence) +
                  (sequence > next ? " (lost)" : " (duplicate or out of order)"));
  }
  next = sequence + 1;
  sum_ += Layout::mix(word);
  ++received_;
  ++arrived[publisher];
}

size_t Subscriber::feed(const char* data, size_t size, uint64_t* arrived) {
  const char* p = data;
  const char* const end = data + size;
  const size_t line_bytes = layout_.received_line_bytes();
  const size_t payload = layout_.payload_bytes();
  const size_t frame = layout_.received_frame_bytes();
  const bool streamed = frame > kStreamedFrameBytes;
  const size_t needed = streamed ? line_bytes + 16 : frame;
  while (p != end) {
    if (body_left_ > 0) {
      size_t n = std::min(body_left_ > 2 ? body_left_ - 2 : 0, static_cast<size_t>(end - p));
      if (n > 0) {
        if (std::memcmp(p, body_, n) != 0) mismatch("payload differs", p, n);
      } else {
        n = 1;
        if (*p != (body_left_ == 2 ? '\r' : '\n')) mismatch("payload does not end in CR LF", p, 1);
      }
      p += n;
      body_ += n;
      body_left_ -= n;
      continue;
    }
    if (*p != 'M') [[unlikely]] {
      const size_t n = control(p, static_cast<size_t>(end - p));
      if (n == 0) break;
      p += n;
      continue;
    }
    if (static_cast<size_t>(end - p) < needed) break;
    const char* const body = p + line_bytes;
    uint64_t word;
    uint32_t index;
    if (payload >= 16) [[likely]] {
      uint64_t tail;
      std::memcpy(&word, body, 8);
      std::memcpy(&tail, body + 8, 8);
      index = static_cast<uint32_t>(tail);
      if (index >= layout_.subjects() || static_cast<uint32_t>(tail >> 32) != Layout::check(word, index)) {
        mismatch("payload check is wrong", p, static_cast<size_t>(end - p));
      }
    } else {
      // Too short to describe itself: it has to be the next one.
      word = next_[0];
      index = 0;
      char head[16];
      Layout::write_head(head, 0, word, index);
      if (std::memcmp(body, head, payload) != 0)
        mismatch("payload is not the next in order", p, static_cast<size_t>(end - p));
    }
    if (!layout_.same_line(p, index)) mismatch("line differs", p, static_cast<size_t>(end - p));
    const uint64_t sequence = word & 0xFFFF'FFFF'FFFFu;
    if (!streamed) {
      if (payload > 16 && std::memcmp(body + 16, layout_.body(sequence) + 16, payload - 16) != 0) {
        mismatch("payload differs", p, static_cast<size_t>(end - p));
      }
      if (body[payload] != '\r' || body[payload + 1] != '\n')
        mismatch("payload does not end in CR LF", p, static_cast<size_t>(end - p));
    } else {
      body_ = layout_.body(sequence) + 16;
      body_left_ = payload - 16 + 2;
    }
    accept(word, index, arrived);
    p += needed;
  }
  return static_cast<size_t>(p - data);
}

size_t Subscriber::control(const char* data, size_t size) {
  const char* newline = static_cast<const char*>(std::memchr(data, '\n', size));
  if (!newline) {
    if (size > 65536) mismatch("endless control line", data, size);
    return 0;
  }
  const std::string_view line(data, static_cast<size_t>(newline - data));
  if (line.starts_with("PING")) connection_.write_all("PONG\r\n");
  else if (line.starts_with("-ERR")) throw Failure("subscriber: " + std::string(line));
  else if (!line.starts_with("INFO") && !line.starts_with("PONG") && !line.starts_with("+OK"))
    mismatch("unknown operation", data, size);
  return line.size() + 1;
}

void Subscriber::mismatch(const char* what, const char* at, size_t available) const {
  std::string seen;
  for (size_t i = 0; i < std::min<size_t>(available, 96); ++i) {
    const unsigned char c = static_cast<unsigned char>(at[i]);
    if (std::isprint(c)) seen += static_cast<char>(c);
    else seen += {'\\', 'x', kHex[c >> 4], kHex[c & 15]};
  }
  throw Failure("subscriber " + std::to_string(options_.id) + " after " + std::to_string(received_) +
                " messages: " + what + ": \"" + seen + "\"");
}

}  // namespace peregrine::bench
