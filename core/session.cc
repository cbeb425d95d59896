#include "core/session.h"

#include <fmt/format.h>

#include "core/shard.h"

namespace peregrine::core {

Session::Session(Shard& shard, SessionKind kind, uint64_t cid, uint32_t conn, std::string ip, uint16_t port)
    : shard(shard),
      cid(cid),
      kind(kind),
      outbox(&shard.pool()),
      conn(conn),
      start_wall_ns_(shard.wall_ns()),
      start_ns_(shard.now_ns()),
      last_activity_ns_(start_ns_),
      ip_(std::move(ip)),
      port_(port) {}

void Session::close(CloseReason reason, bool abort) {
  if (!closing()) {
    close_reason_ = reason;
    shard.to_close(*this);
    shard.mark_dirty(*this);
  }
  if (abort && !abort_) {
    abort_ = true;
    if (!sending) {
      outbox.clear();
      wire().clear();
    }
    shard.mark_dirty(*this);
  }
}

void Session::set_filter(std::unique_ptr<Filter> filter) {
  if (filter_ != nullptr) {
    filter_->encode(outbox);  // what waits does not pass the new one
    filter_->carry(std::move(filter));
    return;
  }
  filter_ = std::move(filter);
  // What waits, a send in flight included, goes out as it is. The memory stays where it is.
  outbox.swap(filter_->wire);
}

void Session::send(std::string_view bytes) {
  outbox.append_line(bytes);
  shard.mark_dirty(*this);
}

void Session::send_error(std::string_view text) {
  send("-ERR '");
  send(text);
  send("'\r\n");
}

void Session::output_waits() {
  if (blocked_since_ns != 0) return;
  blocked_since_ns = shard.now_ns();
  // Most sends complete within microseconds: the timer is only moved when it would come too late, once per
  // write_deadline.
  if (!closing() && timer_.at_ns() > blocked_since_ns + shard.server().options.write_deadline.count()) arm_timer();
}

void Session::hold(Hold why) {
  if ((holds_ & why) != 0) return;
  holds_ |= why;
  shard.mark_dirty(*this);
}

void Session::unhold(Hold why) {
  if ((holds_ & why) == 0) return;
  holds_ &= static_cast<uint8_t>(~why);
  shard.mark_dirty(*this);
}

std::string Session::label() const {
  return ip_.find(':') == std::string::npos ? fmt::format("{}:{} - cid:{}", ip_, port_, cid)
                                            : fmt::format("[{}]:{} - cid:{}", ip_, port_, cid);
}

}  // namespace peregrine::core
